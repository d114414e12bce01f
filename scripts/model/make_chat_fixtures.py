#!/usr/bin/env python3
"""Make tests/fixtures/chat/renderings.json: what transformers renders with the chat templates of tests/fixtures/chat/templates, for
conversations with everything that templates treat apart. A rendering of more than LONG characters is kept as its SHA-256."""

import datetime
import hashlib
import json
import pathlib

import jinja2
import transformers
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

FIXTURES = pathlib.Path(__file__).resolve().parents[2] / "tests" / "fixtures" / "chat"
NOW = datetime.datetime(2024, 7, 26, 9, 5, 3)
LONG = 300
# Whitespace at both ends, characters that HTML and JSON treat apart, several scripts, a character beyond the first plane.
STRANGE = "  <b>\"5 > 3\" & 'c'</b> {{ x }} {% y %} \\n \u00e9\u4f60\U0001f642\u2028\u00a0\x7f\n\ttab\n\n"

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a place.\nUnits: \"C\" or 'F'.",
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"type": "string", "description": "City, e.g. \u00c5rhus"},
                "unit": {"type": "string", "enum": ["C", "F"], "description": "Unit"},
                "days": {"type": "integer", "description": "Days ahead", "default": 1},
                "tags": {"type": "array", "items": {"type": "string"}, "description": "Tags"},
            },
            "required": ["place"],
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "clock", "description": "Tell the time.", "parameters": {"type": "object", "properties": {}}}}


def user(content):
    return {"role": "user", "content": content}


def assistant(content, **more):
    return {"role": "assistant", "content": content, **more}


def system(content):
    return {"role": "system", "content": content}


def call(name, arguments):
    return {"id": "call00001", "type": "function", "function": {"name": name, "arguments": arguments}}


ARGUMENTS = {"place": "S\u00e3o \"Paulo\"", "days": 2, "exact": True, "factor": 0.5, "none": None, "list": [1, "a"], "map": {"k": "v"}}
RESULT = {"role": "tool", "name": "get_weather", "tool_call_id": "call00001", "content": "{\"celsius\": 21.5, \"sky\": \"clear\"}"}
TOOL_TURNS = [user("Weather?"), assistant("", tool_calls=[call("get_weather", ARGUMENTS)]), RESULT]
# Name, messages, and what is given beside them.
CONVERSATIONS = [
    ("prompt", [user("Hello, who are you?")], {"add_generation_prompt": True}),
    ("system", [system("Be brief."), user("Hi"), assistant("Hello."), user("What is 1+1?")], {"add_generation_prompt": True}),
    ("turns", [user("Hi"), assistant("Hello."), user("Bye"), assistant("Goodbye.")], {}),
    ("strange", [system(STRANGE), user(STRANGE), assistant(STRANGE), user(STRANGE)], {"add_generation_prompt": True}),
    ("tools", [user("Weather in Rome?")], {"add_generation_prompt": True, "tools": [WEATHER, CLOCK]}),
    ("tools_system", [system("Use tools."), user("Weather?")], {"add_generation_prompt": True, "tools": [WEATHER]}),
    ("tool_result", TOOL_TURNS, {"add_generation_prompt": True, "tools": [WEATHER]}),
    ("tool_answer", TOOL_TURNS + [assistant("It is clear."), user("Thanks")], {"add_generation_prompt": True, "tools": [WEATHER]}),
    ("tool_text", [user("Weather?"), assistant(None, tool_calls=[call("get_weather", "{\"place\": \"Rome\"}")]), RESULT],
     {"add_generation_prompt": True, "tools": [WEATHER]}),
    ("tool_json", [user("Weather?"), assistant("", tool_calls=[call("get_weather", "{\"place\": \"Rome\"}")]), RESULT],
     {"add_generation_prompt": True, "tools": [WEATHER]}),
    ("thinking", [user("2+2?"), assistant("<think>\nAdd.\n</think>\n\n4"), user("3+3?")], {"add_generation_prompt": True}),
    ("reasoning", [user("2+2?"), assistant("4", reasoning_content="Add them."), user("3+3?"), assistant("6", reasoning_content="Again.")], {}),
    ("no_thinking", [user("2+2?")], {"add_generation_prompt": True, "enable_thinking": False, "thinking": False}),
    ("calls", [user("Weather and time?"), assistant("Both.", tool_calls=[call("get_weather", {"place": "Rome"}), {**call("clock", {}), "id": "call00002"}]),
               RESULT, {"role": "tool", "name": "clock", "tool_call_id": "call00002", "content": "12:00"}],
     {"add_generation_prompt": True, "tools": [WEATHER, CLOCK]}),
    ("documents", [user("Where do they live?")],
     {"add_generation_prompt": True, "documents": [{"title": "Penguins", "text": "They live in the \"south\".\n"}, {"title": "Bears", "text": "North."}]}),
    ("continue_reasoning", [user("2+2?"), assistant("", reasoning_content="Add them, ")], {"continue_final_message": "reasoning_content"}),
    ("continue", [user("Count."), assistant("One, two ")], {"continue_final_message": True}),
    ("parts", [user([{"type": "text", "text": "One "}, {"type": "text", "text": " two"}])], {"add_generation_prompt": True}),
]


class FixedClock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW


def render(template, messages, options):
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE()), bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    try:
        text = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, **options)
    except (jinja2.TemplateError, TypeError, AttributeError, ValueError) as error:
        raised = isinstance(error, jinja2.TemplateError) and not isinstance(error, (jinja2.TemplateSyntaxError, jinja2.UndefinedError))
        return {"error": str(error) if raised else None}
    if len(text) <= LONG:
        return {"text": text}
    return {"length": len(text.encode()), "sha256": hashlib.sha256(text.encode()).hexdigest()}


def main():
    chat_template_utils.datetime = FixedClock
    renderings = {}
    for path in sorted((FIXTURES / "templates").glob("*.jinja")):
        template = path.read_bytes().decode()
        renderings[path.stem] = {name: render(template, messages, options) for name, messages, options in CONVERSATIONS}
    value = {
        "made_with": {"transformers": transformers.__version__, "jinja2": jinja2.__version__},
        "now": NOW.isoformat(),
        "special_tokens": {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"},
        "conversations": {name: {"messages": messages, "options": options} for name, messages, options in CONVERSATIONS},
        "renderings": renderings,
    }
    (FIXTURES / "renderings.json").write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n")
    errors = {(k, n): r["error"] for k, v in renderings.items() for n, r in v.items() if "error" in r}
    for key, error in errors.items():
        print(*key, error)


if __name__ == "__main__":
    main()
