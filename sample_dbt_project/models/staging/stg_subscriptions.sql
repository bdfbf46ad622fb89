select
    'SUB-' || lpad(cast(subscription_number as varchar(5)), 5, '0') as subscription_id,
    'CUS-' || lpad(cast(customer_number as varchar(5)), 5, '0') as customer_id,
    plan,
    seats,
    billing_period,
    discount_percent,
    status,
    cast(round(seats * seat_price * (100 - discount_percent) * 0.01, 2) as decimal(12, 2)) as mrr,
    started_on,
    case
        when status = 'canceled' then null
        when status = 'trialing' then started_on + 30
        when started_on > date '2026-08-05' then started_on + case when billing_period = 'Annual' then 365 else 30 end
        when billing_period = 'Annual' then date '2026-09-02' + renewal_days
        else date '2026-09-02' + renewal_days % 30
    end as renews_on,
    case
        when status <> 'canceled' then null
        when first_status <> 'canceled' then date '2026-09-01'
        when subscription_number > 1100 then started_on + 30 + end_days
        else greatest(started_on, date '2026-08-31' - end_days)
    end as canceled_on
from {{ ref('raw_subscriptions') }}
