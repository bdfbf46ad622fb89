with paying as (
    -- A customer has at most one subscription that has not ended.
    select customer_id, plan, seats, mrr, renews_on, status
    from {{ ref('stg_subscriptions') }}
    where status <> 'canceled'
)

select
    customers.customer_id,
    customers.account_number,
    customers.workspace_name,
    customers.contact_name,
    customers.email,
    customers.phone,
    customers.website,
    customers.country,
    customers.notes,
    customers.integrations,
    coalesce(paying.plan, 'Free') as plan,
    coalesce(paying.status in ('active', 'past_due'), false) as is_paying,
    coalesce(paying.seats, 3) as seats,
    case when paying.status in ('active', 'past_due') then paying.mrr else 0 end as mrr,
    customers.adoption_percent,
    customers.signed_up_on,
    paying.renews_on,
    customers.last_login_at
from {{ ref('stg_customers') }} as customers
left join paying on customers.customer_id = paying.customer_id
