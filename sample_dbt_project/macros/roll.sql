{#- A number from 0 to sides - 1 that looks random and is the same on every build, machine and version:
    md5 rather than random() or hash(). `key` is a SQL expression; `salt` keeps columns independent. -#}
{% macro roll(salt, key, sides) -%}
  {{ adapter.dispatch('roll')(salt, key, sides) }}
{%- endmacro %}

{% macro default__roll(salt, key, sides) -%}
(cast('0x' || substr(md5('{{ salt }}:' || {{ key }}), 1, 7) as integer) % {{ sides }})
{%- endmacro %}

{% macro postgres__roll(salt, key, sides) -%}
(cast(cast('x' || substr(md5('{{ salt }}:' || {{ key }}), 1, 7) as bit(28)) as integer) % {{ sides }})
{%- endmacro %}
