-- 2,300 events of August 2026. Day 2 adds 48 of 1 September, and the pipeline's recount corrects 10 old ones.
{% set day = var('day') | int %}
with numbered as (
    select cast(n as integer) as event_number
    from generate_series(1, {{ 2348 if day >= 2 else 2300 }}) as series(n)
),

rolled as (
    select
        event_number,
        event_number > 2300 as is_new,
        {{ roll('event customer', 'event_number', 1150) }} as customer_roll,
        {{ roll('event customer again', 'event_number', 1150) }} as other_customer_roll,
        {{ roll('event type', 'event_number', 8) }} as event_type_number,
        {{ roll('event quantity', 'event_number', 1000) }} as quantity_roll,
        {{ roll('event duration', 'event_number', 900) }} as duration_roll,
        {{ roll('event second', 'event_number', 1100) }} as second_roll
    from numbered
)

select
    rolled.event_number,
    case
        when rolled.is_new and rolled.event_number % 4 = 0 then 1201 + rolled.event_number % 25
        else 1 + least(rolled.customer_roll, rolled.other_customer_roll)   -- some customers work more than others
    end as customer_number,
    types.event_type,
    case
        when rolled.is_new
            then timestamp '2026-09-01 21:00:00'
                + ((rolled.event_number - 2300) * 200 + rolled.second_roll % 190) * interval '1 second'
        else timestamp '2026-08-01 00:00:00'
            + (rolled.event_number * 1160 + rolled.second_roll) * interval '1 second'
    end as occurred_at,
    1 + rolled.quantity_roll % types.max_quantity
        {%- if day >= 2 %} + case when not rolled.is_new and rolled.event_number % 230 = 7 then 2 else 0 end{% endif %}
        as quantity,
    cast(types.seconds_each * (100 + rolled.duration_roll) / 500.0 as double precision) as duration_seconds,
    types.detail
from rolled
inner join {{ ref('event_types') }} as types using (event_type_number)
