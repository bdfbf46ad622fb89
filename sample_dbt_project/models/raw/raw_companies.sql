-- 745 companies. Numbers 1 to 120 have an account manager at Fernwick; the others signed up by themselves.
with numbered as (
    select cast(n as integer) as company_number from generate_series(1, 745) as series(n)
),

picked as (
    select
        company_number,
        (company_number - 1) % 60 as word_number,
        -- Walks through all 60 x 24 pairs of words before one comes twice.
        mod((company_number - 1) % 60 * 7 + cast(floor((company_number - 1) / 60.0) as integer), 24) as trade_number,
        {{ roll('employees', 'company_number', 1000) }} as size_roll,
        {{ roll('country', 'company_number', 10) }} as country_number
    from numbered
)

select
    picked.company_number,
    words.word || ' ' || trades.trade as company_name,
    lower(words.word || trades.trade) || '.example' as domain,
    trades.industry,
    countries.country,
    countries.phone_prefix,
    case
        when picked.company_number <= 120 then 180 + picked.size_roll * 4
        else 6 + picked.size_roll % 190
    end as employees,
    picked.company_number <= 120 as is_managed
from picked
inner join {{ ref('company_words') }} as words using (word_number)
inner join {{ ref('trades') }} as trades using (trade_number)
inner join {{ ref('countries') }} as countries using (country_number)
