-- 1,200 customers. A customer is one workspace: numbers 1 to 600 are teams of the 120 managed companies, the
-- others are small companies of their own. Day 2 adds 25 customers and applies day_2_contact_changes.
{% set day = var('day') | int %}
with numbered as (
    select cast(n as integer) as customer_number
    from generate_series(1, {{ 1225 if day >= 2 else 1200 }}) as series(n)
),

rolled as (
    select
        customer_number,
        case when customer_number <= 600 then (customer_number - 1) % 120 + 1 else customer_number - 480 end
            as company_number,
        case
            when customer_number <= 120 then 'Product'
            when customer_number <= 240 then 'Engineering'
            when customer_number <= 360 then 'Marketing'
            when customer_number <= 480 then 'Operations'
            when customer_number <= 600 then 'Client Services'
        end as team,
        {{ roll('first name', 'customer_number', 60) }} as first_number,
        {{ roll('last name', 'customer_number', 60) }} as last_number,
        {{ roll('phone', 'customer_number', 108) }} as phone_roll,
        {{ roll('note', 'customer_number', 32) }} as note_number,
        {{ roll('adoption', 'customer_number', 9001) }} as adoption_roll,
        {{ roll('signup', 'customer_number', 36000) }} as signup_seconds,
        {{ roll('login', 'customer_number', 2592000) }} as idle_seconds,
        {{ roll('github', 'customer_number', 3) }} = 0 as uses_github,
        {{ roll('drive', 'customer_number', 4) }} = 0 as uses_google_drive,
        {{ roll('slack', 'customer_number', 2) }} = 0 as uses_slack,
        {{ roll('zapier', 'customer_number', 6) }} = 0 as uses_zapier
    from numbered
)

select
    rolled.customer_number,
    companies.company_number,
    companies.is_managed,
    coalesce(
        showcase.workspace_name,
        companies.company_name || case when rolled.team is null then '' else ' – ' || rolled.team end
    ) as workspace_name,
    coalesce(showcase.contact_name, first_names.first_name || ' ' || last_names.last_name) as contact_name,
    {% if day >= 2 %}coalesce(changes.email, {% else %}({% endif -%}
        coalesce(showcase.mailbox, first_names.first_mailbox || '.' || last_names.last_mailbox)
        || '@' || coalesce(showcase.domain, companies.domain)) as email,
    {% if day >= 2 %}coalesce(changes.phone, {% else %}({% endif -%}
        case when rolled.phone_roll < 100
            then companies.phone_prefix || lpad(cast(rolled.phone_roll as varchar(2)), 2, '0')
        end) as phone,
    'https://www.' || coalesce(showcase.domain, companies.domain) as website,
    companies.country,
    {% if day >= 2 %}coalesce(changes.note, {% else %}coalesce({% endif -%}
        showcase.note, notes.note) as notes,
    rolled.uses_github,
    rolled.uses_google_drive,
    rolled.uses_slack,
    rolled.uses_zapier,
    cast((rolled.adoption_roll + 1000) / 100.0 as decimal(5, 2)) as adoption_percent,
    case
        when rolled.customer_number <= 1200
            then timestamp '2022-01-10 08:00:00'
                + (rolled.customer_number * 121900 + rolled.signup_seconds) * interval '1 second'
        else timestamp '2026-09-01 08:00:00' + (rolled.customer_number - 1200) * interval '1700 seconds'
    end as signed_up_at,
    timestamp '2026-08-31 22:00:00' - rolled.idle_seconds * interval '1 second' as last_login_at
from rolled
inner join {{ ref('raw_companies') }} as companies on rolled.company_number = companies.company_number
inner join {{ ref('people') }} as first_names on rolled.first_number = first_names.person_number
inner join {{ ref('people') }} as last_names on rolled.last_number = last_names.person_number
left join {{ ref('notes') }} as notes on rolled.note_number = notes.note_number
left join {{ ref('showcase_customers') }} as showcase on rolled.customer_number = showcase.customer_number
{% if day >= 2 -%}
left join {{ ref('day_2_contact_changes') }} as changes on rolled.customer_number = changes.customer_number
{% endif -%}
