with workspaces as (
    select
        customers.account_number,
        cast(count(*) as integer) as workspaces,
        cast(sum(customers.seats) as integer) as seats,
        cast(sum(customers.mrr) as decimal(12, 2)) as mrr,
        max(plans.tier) as highest_tier,
        cast(avg(customers.adoption_percent) as decimal(5, 2)) as adoption_percent,
        cast(max(customers.last_login_at) as date) as last_active_on
    from {{ ref('dim_customers') }} as customers
    inner join {{ ref('plans') }} as plans on customers.plan = plans.plan
    where customers.account_number is not null
    group by customers.account_number
)

select
    accounts.domain,
    accounts.company_name,
    accounts.industry,
    accounts.country,
    accounts.employees,
    workspaces.workspaces,
    workspaces.seats,
    workspaces.mrr,
    plans.plan as highest_plan,
    workspaces.adoption_percent,
    workspaces.last_active_on
from {{ ref('stg_accounts') }} as accounts
inner join workspaces on accounts.account_number = workspaces.account_number
inner join {{ ref('plans') }} as plans on workspaces.highest_tier = plans.tier
