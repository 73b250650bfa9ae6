//! Templates of the kinds that models have, and templates that reach out.

use super::*;

const CHATML: &str = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

const LLAMA: &str = r#"{{- bos_token }}
{%- if custom_tools is defined %}{%- set tools = custom_tools %}{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}{%- set date_string = strftime_now("%d %b %Y") %}{%- else %}{%- set date_string = "26 Jul 2024" %}{%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}{%- set system_message = "" %}{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}
{%- if tools is not none %}
    {%- for t in tools %}{{- t | tojson(indent=4) }}{{- "\n\n" }}{%- endfor %}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}{{- raise_exception("This model only supports single tool-calls at once!") }}{%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {%- for arg_name, arg_val in tool_call.arguments | items %}{{- arg_name + '="' + arg_val + '"' }}{%- if not loop.last %}{{- ", " }}{%- endif %}{%- endfor %}
    {%- endif %}
{%- endfor %}"#;

const MISTRAL: &str = r#"{%- if messages[0]["role"] == "system" %}{%- set system_message = messages[0]["content"] %}{%- set loop_messages = messages[1:] %}
{%- else %}{%- set loop_messages = messages %}{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace(index=0) %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}{{- raise_exception("roles must alternate") }}{%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{%- for message in loop_messages %}
    {%- if (message == user_messages[-1]) %}{{- "[AVAILABLE_TOOLS] [" }}{%- for tool in tools %}{%- set tool = tool.function %}{{- '{"type": "function", "function": {' }}
        {%- for key, val in tool.items() if key != "return" %}{%- if val is string %}{{- '"' + key + '": "' + val + '"' }}{%- else %}{{- '"' + key + '": ' + val|tojson }}{%- endif %}{%- endfor %}{{- "}}" }}{%- endfor %}{%- endif %}
{%- endfor %}"#;

const QWEN: &str = r#"{%- macro render(value, depth=0) -%}{%- for name, item in value|dictsort %}{{ '  ' * depth ~ name }}: {{ item|default('') }}{%- endfor %}{%- endmacro -%}
{# a remark with __class__ in it #}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}{%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content %}
    {%- if '</think>' in content %}
        {%- set reasoning_content = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
    {%- endif %}
    {%- if (loop.previtem and loop.previtem.role != "tool") or loop.first %}{{- message.name.replace('_', ' ')|upper }}{%- endif %}
    {{- render({'a': {'b': 1}}) }}{% generation %}{{ content[: 1000] }}{% endgeneration %}
{%- endfor %}
{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}"#;

#[test]
fn templates_that_models_use_are_clean() {
    for text in [CHATML, LLAMA, MISTRAL, QWEN, "", "no tags at all { % }", "{{ '}}' }}{% raw %}x{% endraw %}"]
    {
        let found = judge(text);
        assert!(found.is_empty(), "{found:#?}");
    }
}

#[test]
fn templates_that_reach_out_are_dangerous() {
    let bad = [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ x['__class__'] }}",
        "{{ x['__cla' ~ 'ss__'] }}",
        "{{ x['__cla' + 'ss__'] }}",
        "{{ x['\\x5f\\x5fclass\\x5f\\x5f'] }}",
        "{{ x['\\137\\137class\\137\\137'] }}",
        "{{ x['\\N{LOW LINE}\\N{LOW LINE}init\\N{LOW LINE}\\N{LOW LINE}'] }}",
        "{{ x['__ssalc__'|reverse] }}",
        "{{ x|attr('__class__') }}",
        "{{ x|attr(name) }}",
        "{{ x|attr('a' ~ b) }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ lipsum.__globals__ }}",
        "{{ ['__glo', 'bals__']|join }}",
        "{{ self._TemplateReference__context }}{{ x.__init__ }}",
        "{{ messages|map(attribute='__class__')|list }}",
        "{% set x = ''.__class__ %}",
        "{%- if x.__class__ -%}{% endif %}",
        "{% include '/etc/passwd' %}",
        "{% import name as x %}",
        "{% from 'a' import b %}",
        "{% extends 'base' %}",
        "{% for i in range(10**9) %}{% endfor %}",
        "{% for i in range(1000000000) %}{% endfor %}",
        "{% for i in range(0xFFFFFFF) %}{% endfor %}",
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
        "{{ 'a' * 10_000_000_000 }}",
        "{{ '}}' ~ x.__class__ }}",
        "{{ {'a': {'b': x.__class__}} }}",
        "{% raw %}{% endraw %}{{ x.__class__ }}",
        "{{ x.__class__",
    ];
    for text in bad {
        let worst = judge(text).into_iter().map(|r| r.verdict).max();
        assert_eq!(worst, Some(Verdict::Dangerous), "{text}");
    }
}

#[test]
fn what_no_chat_needs_is_unknown() {
    let odd = [
        "{{ lipsum(n=3) }}",
        "{{ x.format(1) }}",
        "{{ x.mro() }}",
        "{{ config.from_pyfile('x') }}",
        "{{ x._private }}",
        "{{ open('x') }}",
        "{{ x|attr('name') }}",
        "{{ x|unknown_filter }}",
        "{{ x['a' ~ b] }}",
        "{% set u = '_' %}{{ x[u * 2 ~ 'class' ~ u * 2] }}",
        "{{ '%c' % 95 }}",
        "{{ messages|map('attr', 'x') }}",
        "{% debug %}",
        "{{ x['__cla'] }}",
        "{{ a ** b }}",
    ];
    for text in odd {
        let worst = judge(text).into_iter().map(|r| r.verdict).max();
        assert_eq!(worst, Some(Verdict::Unknown), "{text}: {:?}", judge(text));
    }
}

#[test]
fn large_templates_end_early() {
    for text in [
        "{{".repeat(1 << 18),
        "{% for x in range(9) %}".repeat(1 << 15),
        format!("{{{{ {} }}}}", "[".repeat(1 << 19)),
    ] {
        judge(&text);
    }
    assert_eq!(tags("{{ 'a\\'b' }}").first().unwrap().tokens[0].kind, Kind::Text("a'b".into()));
    assert_eq!(number("1_000"), 1000.0);
    assert!(number(&format!("0x{}", "f".repeat(60))).is_infinite());
}
