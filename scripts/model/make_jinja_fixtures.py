#!/usr/bin/env python3
"""Make tests/fixtures/chat/expressions.json: what Jinja, in the environment that transformers makes for chat templates, gives for small
templates that use one thing each, and what strftime gives. A template that Jinja cannot render has null in the place of its text."""

import datetime
import json
import pathlib

from transformers.utils import chat_template_utils

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "fixtures" / "chat" / "expressions.json"
VARIABLES = {
    "s": " \u00e9t\u00e9 \U0001f642 'q' \"d\" ", "lines": "a\n b\r\n\nc\n", "n": 7, "f": 0.5, "yes": True, "no": False, "null": None,
    "list": [3, 1, 2], "words": ["b", "A", "c"], "empty": [], "d": {"b": 1, "a": {"x": [1, 2.5, None, True, "\u2028\u00a0\x7f"]}, "c": "z"},
    "rows": [{"k": "b", "v": 2, "on": True}, {"k": "a", "v": 1}, {"k": "b", "v": 3, "on": False}],
}
EXPRESSIONS = """
{{ s }}|{{ n }}|{{ f }}|{{ yes }}|{{ null }}|{{ missing }}|{{ list }}|{{ d }}
{{ s | trim }}|{{ s.strip() }}|{{ s.lstrip() }}|{{ s.rstrip() }}
{{ '\\n\\n  x \\n'.lstrip('\\n') }}|{{ 'xxaxx'.strip('x') }}|{{ 'abcab'.rstrip('ba') }}|{{ 'xyx' | trim('x') }}
{{ s | length }}|{{ list | length }}|{{ d | length }}|{{ missing | length }}|{{ '\U0001f642' | count }}
{{ null | length }}
{{ s[1] }}|{{ s[5] }}|{{ s[-2] }}|{{ s[1:4] }}|{{ s[::-1] }}|{{ s[:-3] }}|{{ s[5:] }}|{{ s[::2] }}
{{ list[0] }}|{{ list[-1] }}|{{ list[1:] }}|{{ list[::-1] }}|{{ list[9] }}|{{ list[5:1:-1] }}
{{ n + 1 }}|{{ n / 2 }}|{{ 4 / 2 }}|{{ n // 2 }}|{{ -7 // 2 }}|{{ -7 % 3 }}|{{ 2 ** 3 }}|{{ 2 ** -1 }}|{{ n * f }}|{{ 1.0 }}|{{ -n }}
{{ 100000000000000000000.0 }}|{{ 0.00000015 }}|{{ 0.1 + 0.2 }}|{{ 123456789.5 }}|{{ 10000000000000000.0 }}|{{ 0.0001 }}|{{ 0.00001 }}
{{ 1 == 1.0 }}|{{ true == 1 }}|{{ 'a' == 'a' }}|{{ [1] == [1.0] }}|{{ {'a': 1} == {'a': 1} }}|{{ none == missing }}|{{ none == none }}|{{ '1' == 1 }}
{{ 1 < 2 }}|{{ 'a' < 'b' }}|{{ 'Z' < 'a' }}|{{ [1, 2] < [1, 3] }}|{{ 2 >= 2 }}
{{ 'a' < 1 }}
{{ 'a' + 1 }}
{{ 'a' + none }}
{{ 'a' + list }}
{{ missing + 'a' }}
{{ missing.x }}
{{ d.missing }}|{{ d['missing'] }}|{{ d.missing is defined }}|{{ d.a.x[0] }}|{{ d['a']['x'][-1] }}
{{ d.missing.more }}
{{ none.x }}|{{ n.x }}|{{ none['x'] }}
{{ 'a' ~ 1 ~ none ~ list ~ f }}
{{ 'a' * 3 }}|{{ [1] + [2] }}|{{ (1, 2) + (3, 4) }}|{{ (1, 'a') }}
{{ 'b' in 'abc' }}|{{ 'x' not in 'abc' }}|{{ 2 in list }}|{{ 'a' in d }}|{{ 'a' in missing }}|{{ 1.0 in [1] }}
{{ 'a' in none }}
{{ 1 in 'abc' }}
{{ n and 'x' }}|{{ '' or 'y' }}|{{ not n }}|{{ none or missing or 'z' }}|{{ empty and 1 }}
{{ 'x' if yes }}|{{ 'x' if no }}|{{ 'x' if no else 'y' }}
{{ s | upper }}|{{ s | lower }}|{{ 'hELLO wORLD' | title }}|{{ 'hELLO wORLD' | capitalize }}|{{ 'stra\u00dfe' | upper }}
{{ 'a.b c-d' | title }}|{{ "it's a dog's" | title }}|{{ 'a b'.title() }}|{{ 'x y'.capitalize() }}
{{ none | trim }}|{{ list | trim }}|{{ n | trim }}|{{ missing | trim }}|{{ none | upper }}
{{ list | join }}|{{ list | join(', ') }}|{{ rows | join('+', attribute='k') }}|{{ words | join('-') }}|{{ d | join(',') }}
{{ list | first }}|{{ list | last }}|{{ 'abc' | first }}|{{ empty | first }}|{{ empty | last }}
{{ list | sort }}|{{ words | sort }}|{{ words | sort(case_sensitive=true) }}|{{ list | sort(reverse=true) }}|{{ rows | sort(attribute='v') | map(attribute='v') | list }}
{{ list | max }}|{{ list | min }}|{{ words | max }}|{{ list | sum }}|{{ rows | sum(attribute='v') }}|{{ [1, 0.5] | sum }}
{{ list | reverse | list }}|{{ 'abc' | reverse }}|{{ list | list }}|{{ 'abc' | list }}|{{ d | list }}
{{ rows | selectattr('on') | list | length }}|{{ rows | selectattr('on', 'defined') | list | length }}|{{ rows | rejectattr('on', 'defined') | map(attribute='k') | list }}
{{ rows | selectattr('k', 'equalto', 'b') | map(attribute='v') | list }}|{{ rows | selectattr('v', '>', 1) | map(attribute='v') | list }}|{{ rows | selectattr('k', 'in', ['a']) | list }}
{{ list | select('odd') | list }}|{{ list | reject('odd') | list }}|{{ [0, 1, ''] | select | list }}|{{ list | reject('equalto', 1) | list }}|{{ list | reject('in', [1, 2]) | list }}
{{ words | map('upper') | list }}|{{ words | map('replace', 'b', 'x') | list }}|{{ rows | map(attribute='on', default=5) | list }}
{{ words | unique | list }}|{{ ['a', 'A', 'b', 'a'] | unique | list }}|{{ [1, 2, 1] | unique | list }}
{{ d | dictsort }}|{{ {'b': 2, 'A': 1} | dictsort }}|{{ {'b': 1, 'a': 2} | dictsort(by='value') }}|{{ d | items | list }}
{{ d.items() | list }}|{{ d.keys() | list }}|{{ d.values() | list }}|{{ d.get('b') }}|{{ d.get('q') }}|{{ d.get('q', 5) }}
{{ d | tojson }}|{{ list | tojson }}|{{ s | tojson }}|{{ none | tojson }}|{{ yes | tojson }}|{{ f | tojson }}|{{ 2.0 | tojson }}
{{ d | tojson(indent=2) }}|{{ [] | tojson(indent=2) }}|{{ {} | tojson(indent=4) }}|{{ [[1], {}] | tojson(indent=1) }}
{{ d | tojson(ensure_ascii=true) }}|{{ d | tojson(sort_keys=true) }}|{{ d | tojson(separators=(',', ':')) }}|{{ '\U0001f642' | tojson(ensure_ascii=true) }}
{{ '<a href="x">&\\'' | tojson }}|{{ '<a>&"\\'' | escape }}|{{ '<a>' | e }}|{{ '<a>' | safe }}
{{ missing | tojson }}
{{ missing | default('x') }}|{{ '' | default('x') }}|{{ '' | default('x', true) }}|{{ none | default('x') }}|{{ none | default('x', boolean=true) }}|{{ missing | d(1) }}
{{ 'a b  c '.split() }}|{{ 'a,b,,c'.split(',') }}|{{ 'a,b,c'.split(',', 1) }}|{{ ' a  b c '.split(none, 1) }}|{{ 'a,b,c'.rsplit(',', 1) }}|{{ ''.split() }}|{{ ''.split(',') }}
{{ lines.splitlines() }}|{{ lines.split('\\n') }}|{{ 'a</think>b</think>c'.split('</think>')[-1] }}
{{ 'abc'.startswith('ab') }}|{{ 'abc'.endswith('bc') }}|{{ 'abc'.startswith(('x', 'a')) }}|{{ 'abc'.endswith('') }}
{{ 'aXbXc'.replace('X', '-') }}|{{ 'aXbXc'.replace('X', '-', 1) }}|{{ 'aXbXc' | replace('X', '-') }}|{{ 'aXbXc' | replace('X', '$&', 1) }}|{{ 'ab'.replace('', '.') }}
{{ 'abcab'.find('b') }}|{{ 'abcab'.rfind('b') }}|{{ 'abcab'.find('x') }}|{{ 'abcab'.count('ab') }}|{{ '\U0001f642b'.find('b') }}
{{ 'abc'.removeprefix('a') }}|{{ 'abc'.removesuffix('c') }}|{{ 'abc'.removesuffix('') }}|{{ '12'.isdigit() }}|{{ ''.isdigit() }}|{{ 'a1'.isalnum() }}|{{ ' \\t'.isspace() }}|{{ 'AB'.isupper() }}|{{ '12'.islower() }}
{{ ', '.join(words) }}
{{ ', '.join(list) }}
{{ '12' | int }}|{{ 'x' | int }}|{{ '3.7' | float }}|{{ 3.7 | int }}|{{ 'x' | int(9) }}|{{ 'x' | float }}|{{ true | int }}|{{ '3' | float }}
{{ 3.456 | round(2) }}|{{ 2.5 | round }}|{{ 3.5 | round }}|{{ 2.1 | round(method='ceil') }}|{{ 5 | round }}|{{ -3 | abs }}|{{ -0.5 | abs }}
{{ 'a\\nb\\n\\nc' | indent }}|{{ 'a\\nb' | indent(2, true) }}|{{ 'a\\n\\nb' | indent(2, blank=true) }}|{{ 'a\\nb' | indent('> ') }}
{{ list | string }}|{{ d | string }}|{{ none | string }}|{{ s | string }}|{{ 'a b c' | wordcount }}
{{ [1, 2, 3, 4, 5] | batch(2) | list }}|{{ [1, 2, 3] | batch(2, 0) | list }}
{{ n is odd }}|{{ n is even }}|{{ n is number }}|{{ f is number }}|{{ f is float }}|{{ n is integer }}|{{ yes is integer }}|{{ yes is number }}|{{ yes is boolean }}
{{ s is string }}|{{ list is sequence }}|{{ d is mapping }}|{{ d is iterable }}|{{ s is iterable }}|{{ n is iterable }}|{{ d is sequence }}|{{ null is none }}|{{ missing is none }}|{{ missing is undefined }}|{{ missing is iterable }}
{{ yes is true }}|{{ 1 is true }}|{{ no is false }}|{{ 'a' is lower }}|{{ 'A' is upper }}|{{ '1' is lower }}|{{ n is not none }}
{{ range(3) | list }}|{{ range(1, 4) | list }}|{{ range(5, 0, -2) | list }}|{{ range(0) | list }}
{% for x in list %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }};{% endfor %}
{% for x in list if x > 1 %}{{ x }}{{ loop.index }}{{ loop.last }};{% else %}none{% endfor %}|{% for x in empty %}{% else %}none{% endfor %}|{% for x in missing %}{% else %}none{% endfor %}
{% for x in none %}{% endfor %}
{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}|{% for k in d %}{{ k }}{% endfor %}|{% for c in 'ab' %}{{ c }}.{% endfor %}
{% for x in range(9) %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 5 %}{% break %}{% endif %}{{ x }}{% endfor %}
{% for x in range(3) %}a{% if x == 1 %}b{% break %}{% endif %}c{% endfor %}
{% set x = 1 %}{% for i in range(3) %}{% set x = x + 1 %}{{ x }}{% endfor %}{{ x }}
{% for i in range(3) %}{% if i == 0 %}{% set y = 'set' %}{% endif %}{{ y }},{% endfor %}{{ y }}
{% set ns = namespace(x=1, y='a') %}{% for i in range(3) %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}{{ ns.y }}{{ ns.z }}
{% set ns = namespace() %}{% set ns.a = [] %}{% set ns.a = ns.a + [1] %}{{ ns.a }}
{% if yes %}{% set z = 5 %}{% endif %}{{ z }}|{% set a, b = 1, 2 %}{{ a }}{{ b }}|{% set t %}x{{ n }}{% endset %}{{ t }}
{% macro m(a, b=2, c='z') %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }}|{{ m(1, 3) }}|{{ m(1, c='q') }}|{{ m(b=5, a=4) }}|{{ m() }}
{% macro m() %}{{ x }}{% endmacro %}{% set x = 'late' %}{{ m() }}|{% for x in ['inner'] %}{{ m() }}{% endfor %}
{% macro m(x) %}{{ caller(x) }}{% endmacro %}{% call(y) m(3) %}<{{ y }}>{% endcall %}|{% filter upper %}abc{{ n }}{% endfilter %}
{% macro a(n) %}{% if n %}{{ n }}{{ a(n - 1) }}{% endif %}{% endmacro %}{{ a(3) }}|{% macro v() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ v(1, 2, k=3) }}
{% if n == 1 %}a{% elif n == 7 %}b{% else %}c{% endif %}|{% if '' %}x{% endif %}|{% if [] or {} %}x{% else %}y{% endif %}|{% if not missing %}u{% endif %}
{{ {'a': 1, 'b': [1, 2]} }}|{{ {1: 'x'}[1] }}|{{ [1, 'a', none, true, 1.5] }}|{{ dict(a=1) }}|{{ {'x': 'it\\'s'} }}|{{ ['"', "'", "\\"'"] }}
{{ ['\u00e9\U0001f642\u2028\u00a0\x7f\\n\\t\\\\'] }}|{{ ['\u200b\ufeff\u3000\ue000'] }}
{{ list.index(1) }}|{{ list.count(1) }}|{{ [1, 1, 2].count(1) }}
{{ list.append(4) }}
{{ 'a'.nothing() }}
{{ n() }}
{{ raise_exception('oh no') }}
{{- ' a ' -}}  b  {{- 'c' }} |  {{ 'd' -}}  e
{%- if yes -%}  x  {%- endif -%}  y
{# comment #}a{#- another -#}  b
{{ 'a' 'b' }}|{{ "a\\tb\\\\n" }}|{{ 'a\\'b' }}|{{ '\\u00e9' }}|{{ '\\x41' }}
{{ (n if yes else 0) + 1 }}|{{ n | string ~ 'x' }}|{{ -n | abs }}|{{ 2 + 3 * 4 }}|{{ (2 + 3) * 4 }}|{{ not yes or yes }}|{{ 1 < 2 and 2 < 3 }}
{{ s.split("'")[1] | upper }}|{{ (list | sort)[0] }}|{{ d.a.x | length }}|{{ rows[0].k }}|{{ rows[-1]['v'] }}|{{ rows[0]['k'][0] }}
{{ strftime_now('%Y') | length }}|{{ 'abc'[1:][0] }}|{{ 'x'.join(['a', 'b']) }}|{{ 'a'.upper().lower() }}
{{ '\u0130\u0131\u00df\u01c5'.lower() }}|{{ '\u00df\ufb01'.upper() }}|{{ '\u03a3\u03a3'.lower() }}
{{ 4 is divisibleby(2) }}|{{ 4 is divisibleby 3 }}|{{ 4 is not divisibleby(3) }}|{{ 4 is eq 4 }}|{{ 4 is not eq 4 }}|{{ n is gt 6 and n is lt 8 }}|{{ 'a' is in ['a', 'b'] }}|{{ 1 is in [2] }}|{{ n is eq(7) }}
{{ 'b' is in d }}|{{ 'x' is in 'xyz' }}|{{ none is sameas none }}|{{ yes is sameas true }}|{{ n is ge n }}|{{ n is eq d.b + 6 }}|{{ rows[0].v is eq rows[0]['v'] }}|{{ n is eq [7][0] }}|{{ 'ab' is eq 'a' 'b' }}
{{ n is defined and n is number }}|{{ not n is odd }}|{{ n is odd | string }}|{{ 'yes' if n is eq 7 else 'no' }}|{{ 'upper' is filter }}|{{ 'odd' is test }}|{{ 'nothing' is filter }}|{{ n is string or n is integer }}
{{ n is eq -7 }}
{{ n is odd is sameas true }}
{{ 'a' is in ['a'] is eq true }}
{{ () }}|{{ (1,) }}|{{ (1, 2,) }}|{{ ((1, 2), (3,)) }}|{{ () | length }}|{{ (1,) + (2,) }}|{{ 1 in (1,) }}|{{ (n) }}|{{ ('a') }}|{{ ('a',)[0] }}|{{ 'abc'.startswith(('x', 'a')) }}|{{ 'abc'.startswith(('a',)) }}
{{ 1e3 }}|{{ 1.5e3 }}|{{ 1E-2 }}|{{ 2e+2 }}|{{ -1e2 }}|{{ 1e20 }}|{{ 1_000 }}|{{ 1_0.5 }}|{{ 0xff }}|{{ 0b101 }}|{{ 0o17 }}|{{ [1e2, 0xA][1] }}|{{ n + 1e1 }}|{{ n - 1e1 }}
{{ 1 < n < 10 }}|{{ 1 < n < 5 }}|{{ 3 > 2 > 1 }}|{{ (3 > 2) > 1 }}|{{ 1 == 1 == 1 }}|{{ (1 == 1) == true }}|{{ (1 == 2) == (3 == 4) }}|{{ 'a' in 'ab' in ['ab'] }}|{{ 1 in list == true }}|{{ (1 in list) == true }}|{{ not 1 == 2 }}|{{ (n == 7) != (n % 2 == 0) }}
{{ 'a' + 1 ~ 2 }}|{{ ('a' + 'b') ~ 1 }}|{{ 'a' ~ 1 ~ 'b' + 'c' ~ 2 }}|{{ 1 ~ 2 }}|{{ 1 + 2 - 3 }}|{{ 10 - 2 - 3 }}|{{ 10 - (2 - 3) }}|{{ 'x' + 'y' + 'z' }}|{{ (1 + 2) ~ 'x' }}|{{ 2 * 3 ~ 4 }}
{{ 1 + 2 ~ 'x' }}
{{ 'a' ~ n - 1 }}
{{ 'a' ~ (n - 1) }}|{{ (n + 1) * 2 }}|{{ 2 ** 3 ** 2 }}|{{ -2 ** 2 }}|{{ [1] * 3 }}|{{ 3 * 'ab' }}|{{ 'ab' * 0 }}|{{ 'ab' * -1 }}|{{ (1, 2) * 2 }}|{{ [0] * true }}
{{ 'a' * 1.5 }}
{{ '<' | safe + '>' }}|{{ '<' + '>' | safe }}|{{ '<' | safe + '>' | safe + '&' }}|{{ '<' | e + '>' }}|{{ '<' | safe ~ '>' }}|{{ 'a' + '<' + '>' | safe }}
{{ 'a{}b{}'.format(1, 'x') }}|{{ '{0}{1}{0}'.format('a', none) }}|{{ '{x}-{y}'.format(x=1, y=[1]) }}|{{ '{{}}{}'.format(2) }}|{{ '{!r}'.format('q') }}|{{ '{:>5}|{:<5}|{:^5}|{:*^7}'.format('a', 'b', 'c', 'd') }}|{{ '{:5}|{:5}'.format('a', 1) }}
{{ '{:d}|{:+d}|{:05d}|{:,}|{:x}|{:X}|{:o}|{:b}'.format(7, 7, -7, 1234567, 255, 255, 8, 5) }}|{{ '{:.2f}|{:.0f}|{:.0f}|{:.2f}|{:8.3f}|{:.1%}'.format(3.14159, 0.5, 1.5, 0.125, 2.5, 0.256) }}|{{ '{}'.format(1.0) }}|{{ '{:.2}'.format('abc') }}|{{ '{}'.format(true) }}
{{ '{} {}'.format(1) }}
{{ '{:d}'.format('a') }}
{{ '{'.format(1) }}
{{ '%s and %s' % ('a', 1) }}|{{ '%d%%' % 5 }}|{{ '%5.2f|%-5s|%05d|%+d' % (3.14159, 'a', 42, 7) }}|{{ '%r' % 'a' }}|{{ '%(k)s' % {'k': 1} }}|{{ '%s' | format(n) }}|{{ '%s-%s' | format('a', none) }}|{{ '%(x)s' | format(x=3) }}|{{ '%s' % [1, 2] }}|{{ '%x|%X|%o' % (255, 255, 8) }}|{{ '%d' % 3.9 }}|{{ '%s' % none }}
{{ '%s %s' % 'a' }}
{{ '%d' % 'a' }}
{{ '%s' % (1, 2) }}
{% for x in [{'n': 1, 'c': [{'n': 2, 'c': [{'n': 3}]}]}, {'n': 4}] recursive %}{{ x.n }}:{{ loop.depth }}{{ loop.depth0 }}{% if x.c %}({{ loop(x.c) }}){% endif %};{% endfor %}
{% for x in [1, [2, [3]], 4] if x recursive %}{% if x is sequence %}<{{ loop(x) }}>{% else %}{{ x }}{% endif %}{{ loop.index }}{% endfor %}
{% for x in list %}{{ loop(list) }}{% endfor %}
{% for x in (list if yes else empty) %}{{ x }}{% endfor %}|{% for recursive in [1] %}{{ recursive }}{% endfor %}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(none) }}|{{ m(a=none) }}|{{ m(missing) }}
{% macro m(a, b=none, c=3) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1, none, none) }}|{{ m(none, c=none) }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, b=2) }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, a=2) }}
{% macro m(a) %}{{ a }}{{ varargs }}{% endmacro %}{{ m(1, 2) }}|{{ m(1) }}
{% macro m(a) %}{{ a }}{{ kwargs }}{% endmacro %}{{ m(1, b=2) }}|{{ m(b=2) }}|{{ m(1, a=2) }}
{% macro m(a) %}{{ a }}{{ kwargs }}{% endmacro %}{{ m(1, 2) }}
{% macro m(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}|{{ m(1, 2) }}
{% macro m() %}{{ caller is defined }}{% endmacro %}{{ m() }}|{% call m() %}x{% endcall %}
{% macro m() %}x{% endmacro %}{% call m() %}y{% endcall %}
{% macro m() %}{{ caller() }}{% endmacro %}{{ m() }}
{% set ns = namespace(x=none) %}{{ ns.x }}|{{ ns.x is none }}|{{ ns.y is defined }}|{{ [none][0] }}|{{ [none] | first }}|{{ [none] | last }}|{{ [none][-1] is none }}|{{ {'a': none}.a }}
{% set ns = namespace() %}{% set ns._x = 1 %}
{% for x in [none, 1] %}{{ loop.previtem is defined }}{{ loop.nextitem }};{% endfor %}|{% for x in [1, 2, 3] %}{{ loop.cycle('a', none) }}{{ loop.changed(x > 1) }}{% endfor %}
{{ list | select('odd') | length }}
{{ list | map('string') | tojson }}
{{ d.keys() | tojson }}
{{ (list | select('odd'))[0] }}|{{ 'x' if empty | select }}|{{ list | select('odd') | first }}|{{ list | map('string') | join }}|{{ rows | map(attribute='k') | unique | list }}|{{ list | reverse | first }}|{{ d.items() }}|{{ d.keys() }}|{{ d.values() | length }}|{{ d.items() | first }}|{{ 'x' if {}.items() }}
{{ list | select('odd') | last }}
{{ d.items()[0] }}|{{ d.items()[0] is defined }}|{{ d.items() is iterable }}|{{ d.items() is sequence }}|{{ list | select is iterable }}|{{ list | select is sequence }}
{% set g = list | select('odd') %}{{ g | list }}{{ g | list }}{{ 'x' if g }}
{{ none | select('odd') | list }}|{{ none | map(attribute='x') | list }}|{{ none | selectattr('x') | list }}
{{ none | list }}
{{ none | sort }}
{{ rows | groupby('k') | map('first') | list }}|{{ rows | groupby('on', default=false) | map('length') | list }}|{% for k, items in rows | groupby('k') %}{{ k }}{{ items | length }};{% endfor %}
{{ list.append is defined }}|{{ list.append }}|{{ d.update is undefined }}
{{ d.pop('b') }}
{{ [missing] }}|{{ missing | capitalize }}|{{ missing | title }}|{{ missing | replace('a', 'b') }}|{{ missing | wordcount }}|{{ 'b' % [] }}|{{ true | round(1) }}|{{ list[true] }}|{{ 'abc'[false] }}|{{ (1, 2, 3) | batch(2) | list }}
{{ 'a\\r\\nb\\n' | indent }}|{{ missing is sequence }}|{{ -3 is odd }}|{{ 7.5 is divisibleby 2.5 }}|{{ missing is callable }}|{{ (1,) in {} }}|{{ (1, 2,) }}|{{ [(1), (2,)] }}|{{ (n if yes else 0) }}
{{ missing | int }}
{{ missing | abs }}
{{ none is divisibleby 2 }}
{{ none | abs }}
{{ [] in {} }}
{{ rows | unique | list }}
{{ [] < () }}
{{ (1,).copy() }}
{{ none | indent }}
{{ (1 2) }}
{{ (n == 7 n) }}
{{ d[1:] }}
""".strip("\n").split("\n")
LINE_ENDS = ["a{{ n }}{# x #}\r\n{% if yes %}\r\nb\r{% endif %}\r\nc\r\n", "{% if yes %}\n  {% set x = 1 %}\n  {{ x }}\n{% endif %}\n\n"]
FORMATS = ["%Y-%m-%d", "%d %b %Y", "%B %d, %Y", "%A %a %j %w %u", "%H:%M:%S %I %p", "%-d/%-m/%y %e", "%F %T %R %D", "100%% %-I %-j %h", "%n%t|", "%C %G-W%V %g %U %W", "%k %l %P %r", "%c | %x | %X", "[%z%Z]", "%_d %_m %^b %^A %-H %_I"]
TIMES = [datetime.datetime(2024, 7, 26, 9, 5, 3), datetime.datetime(2024, 12, 31, 23, 59, 59), datetime.datetime(2025, 1, 5, 0, 0, 0),
         datetime.datetime(2021, 1, 3, 12, 0, 0), datetime.datetime(2020, 12, 31, 13, 1, 0), datetime.datetime(2024, 1, 1, 1, 1, 1)]


def render(source):
    try:
        return chat_template_utils._compile_jinja_template(source).render(
            messages=[{"role": "user", "content": "x"}], tools=None, documents=None, add_generation_prompt=False, **VARIABLES
        )
    except Exception:
        return None


def main():
    sources = list(EXPRESSIONS) + LINE_ENDS
    # Each part of a line by itself too, so that a failure names what failed.
    for line in EXPRESSIONS:
        if "%}" not in line and "}}|{{" in line:
            parts = line.removeprefix("{{").removesuffix("}}").split("}}|{{")
            sources += ["{{" + part + "}}" for part in parts]
    value = {
        "variables": VARIABLES,
        "expressions": [[source, render(source)] for source in sources],
        "times": [{"time": time.isoformat(), "format": format, "text": time.strftime(format)} for time in TIMES for format in FORMATS],
    }
    OUT.write_text(json.dumps(value, ensure_ascii=True, indent=1) + "\n")


if __name__ == "__main__":
    main()
