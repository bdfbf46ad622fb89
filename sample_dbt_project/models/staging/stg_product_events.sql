select
    'EVT-' || lpad(cast(event_number as varchar(6)), 6, '0') as event_id,
    'CUS-' || lpad(cast(customer_number as varchar(5)), 5, '0') as customer_id,
    event_type,
    occurred_at,
    quantity,
    duration_seconds,
    detail
from {{ ref('raw_product_events') }}
