select
    event_id,
    customer_id,
    event_type,
    occurred_at,
    quantity,
    duration_seconds,
    detail
from {{ ref('stg_product_events') }}
