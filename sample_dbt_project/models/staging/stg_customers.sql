select
    'CUS-' || lpad(cast(customer_number as varchar(5)), 5, '0') as customer_id,
    case when is_managed then company_number end as account_number,
    workspace_name,
    contact_name,
    lower(email) as email,
    phone,
    website,
    country,
    notes,
    -- In the order in which the picklist lists its values: Salesforce returns them so.
    nullif(
        concat_ws(
            ';',
            case when uses_github then 'GitHub' end,
            case when uses_google_drive then 'Google Drive' end,
            case when uses_slack then 'Slack' end,
            case when uses_zapier then 'Zapier' end
        ),
        ''
    ) as integrations,
    adoption_percent,
    cast(signed_up_at as date) as signed_up_on,
    greatest(last_login_at, signed_up_at) as last_login_at
from {{ ref('raw_customers') }}
