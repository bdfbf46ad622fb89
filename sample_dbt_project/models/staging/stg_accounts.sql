select
    company_number as account_number,
    company_name,
    domain,
    industry,
    country,
    employees
from {{ ref('raw_companies') }}
where is_managed
