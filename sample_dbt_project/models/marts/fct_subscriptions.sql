select
    subscription_id,
    customer_id,
    plan,
    status,
    billing_period,
    seats,
    mrr,
    discount_percent,
    status <> 'canceled' and billing_period = 'Annual' as auto_renews,
    started_on,
    renews_on,
    canceled_on
from {{ ref('stg_subscriptions') }}
