-- 1,500 subscriptions: numbers 1 to 1100 are the latest of customers 101 to 1200, 1101 to 1500 are
-- earlier ones that ended. Day 2 adds 15, of new customers, and applies day_2_subscription_changes.
{% set day = var('day') | int %}
with numbered as (
    select cast(n as integer) as subscription_number
    from generate_series(1, {{ 1515 if day >= 2 else 1500 }}) as series(n)
),

owned as (
    select
        subscription_number,
        case
            when subscription_number <= 1100 then subscription_number + 100
            when subscription_number <= 1500 then (subscription_number - 1100) * 2
            else subscription_number - 300
        end as customer_number,
        subscription_number between 1101 and 1500 as is_earlier
    from numbered
),

rolled as (
    select
        *,
        customer_number > 1180 as is_recent,
        customer_number <= 800 and customer_number % 2 = 0 and not is_earlier as has_earlier,
        {{ roll('plan', 'subscription_number', 100) }} as plan_roll,
        {{ roll('status', 'subscription_number', 100) }} as status_roll,
        {{ roll('seats', 'subscription_number', 10000) }} as seats_roll,
        {{ roll('annual', 'subscription_number', 100) }} < 40 as is_annual,
        {{ roll('deal', 'subscription_number', 8) }} = 0 as has_deal,
        {{ roll('start', 'subscription_number', 20) }} as start_days,
        {{ roll('end', 'subscription_number', 150) }} as end_days,
        {{ roll('renewal', 'subscription_number', 365) }} as renewal_days
    from owned
),

day_1 as (
    select
        *,
        case
            when is_earlier or plan_roll < 45 then 'Starter'
            when plan_roll < 78 then 'Team'
            when plan_roll < 94 then 'Business'
            else 'Enterprise'
        end as first_plan,
        case
            when is_earlier then 'canceled'
            when is_recent then case when subscription_number % 3 = 0 then 'trialing' else 'active' end
            when status_roll < 88 then 'active'
            when status_roll < 92 then 'past_due'
            else 'canceled'
        end as first_status
    from rolled
),

today as (
    select
        day_1.*,
        {% if day >= 2 -%}
        coalesce(changes.plan, day_1.first_plan) as plan,
        changes.seats as changed_seats,
        coalesce(changes.status, day_1.first_status) as status
        {%- else -%}
        first_plan as plan,
        cast(null as integer) as changed_seats,
        first_status as status
        {%- endif %}
    from day_1
    {% if day >= 2 -%}
    left join {{ ref('day_2_subscription_changes') }} as changes
        on day_1.subscription_number = changes.subscription_number
    {% endif -%}
)

select
    today.subscription_number,
    today.customer_number,
    today.plan,
    plans.seat_price,
    coalesce(
        today.changed_seats, first_plans.min_seats + today.seats_roll % first_plans.seat_spread
    ) as seats,
    case when today.is_annual then 'Annual' else 'Monthly' end as billing_period,
    cast(
        case when today.is_annual then 15 else 0 end + case when today.has_deal then 7.5 else 0 end
        as decimal(5, 2)
    ) as discount_percent,
    today.status,
    cast(customers.signed_up_at as date)
        + case
            when today.is_earlier or today.is_recent then 0
            when today.has_earlier then 200 + today.start_days
            else today.start_days
        end as started_on,
    today.renewal_days,
    today.end_days,
    today.first_status
from today
inner join {{ ref('raw_customers') }} as customers on today.customer_number = customers.customer_number
inner join {{ ref('plans') }} as plans on today.plan = plans.plan
inner join {{ ref('plans') }} as first_plans on today.first_plan = first_plans.plan
