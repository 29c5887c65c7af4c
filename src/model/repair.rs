//! Finding JSON in what a model said, and mending it.
//!
//! Models wrap JSON in thoughts, prose and fences, and break it in a dozen known ways. The steps go from harmless to
//! daring: the text as it stands, its JSON-like parts, bad escapes mended, then a repair library. A repair can silently
//! yield other data than was meant, so all readings are offered in order of trust, and the caller's schema decides. The
//! library is guarded: bounded input, and a panic of its is only a reading less.
//!
//! A second library, `llm_json`, was tried and left out: of 65 broken samples it alone read one rightly, it read a
//! dozen as other data that a schema lets pass (texts cut at an inner quote), and 6 500 nested objects overflow a
//! thread's stack (2 MiB, debug build), which ends the process. Asking again is better than that.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::Value;

/// Longest text that the repairing steps look at.
const REPAIR_BYTES_MAX: usize = 256 * 1024;
/// Parts of one text that are tried.
const PARTS_MAX: usize = 16;

/// One way to read a text as JSON.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) value: Value,
    /// True when the JSON was changed to be readable; false when it only had to be found.
    pub(super) repaired: bool,
}

/// All readings of `text`, the most trusted first. Lazy: a caller that takes the first one pays for no repair.
pub(super) fn readings(text: &str) -> impl Iterator<Item = Reading> {
    let text = text.trim().trim_start_matches('\u{feff}');
    // Before anything is taken away: JSON that speaks of thoughts is whole as it stands.
    let as_it_stands = serde_json::from_str(text).ok();
    let text = without_thoughts(text).trim().trim_start_matches('\u{feff}').to_owned();
    let whole = as_it_stands.or_else(|| serde_json::from_str(&text).ok()).into_iter();
    let parts = parts(&text);
    let strict: Vec<Value> = parts.iter().filter_map(|part| serde_json::from_str(part).ok()).collect();
    let repairs = parts.into_iter().filter(|part| part.len() <= REPAIR_BYTES_MAX).flat_map(|part| {
        [mend_escapes as fn(&str) -> Option<Value>, by_jsonrepair].into_iter().filter_map(move |step| {
            let value = catch_unwind(AssertUnwindSafe(|| step(&part))).ok()??;
            // A repair can make a string of any prose; only structures are believed.
            (value.is_object() || value.is_array()).then_some(value)
        })
    });
    whole
        .chain(strict)
        .map(|value| Reading { value, repaired: false })
        .chain(repairs.map(|value| Reading { value, repaired: true }))
}

/// Drops `<think>…</think>`, also one that was never closed or whose opening tag went with the template; but nothing inside
/// a bracketed value, where the words are somebody's text.
fn without_thoughts(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = match text.find("</think>") {
        Some(end) if !text[..end].contains("<think>") && text[end..].contains(['{', '[']) => {
            &text[end + "</think>".len()..]
        }
        _ => text,
    };
    while let Some(start) = rest.find("<think>").filter(|start| !inside_value(rest, *start)) {
        out.push_str(&rest[..start]);
        match rest[start..].find("</think>") {
            Some(end) => rest = &rest[start + end + "</think>".len()..],
            None => return out,
        }
    }
    out.push_str(rest);
    out
}

/// True when the byte `at` of a text is inside brackets that opened before it.
fn inside_value(text: &str, at: usize) -> bool {
    let mut from = 0;
    while let Some(start) = text[from..at].find(['{', '[']).map(|offset| from + offset) {
        match scan(&text[start..]) {
            End::At(end) if start + end <= at => from = start + end,
            _ => return true,
        }
    }
    false
}

/// The parts of a text that look like JSON: fenced blocks, balanced brackets, an unbalanced rest.
fn parts(text: &str) -> Vec<String> {
    let mut parts: Vec<String> = fenced(text).into_iter().map(str::to_owned).collect();
    parts.extend(balanced(text).into_iter().map(str::to_owned));
    parts.dedup();
    parts.retain(|part| !is_cut(part));
    parts.truncate(PARTS_MAX);
    parts
}

/// True when the text ends inside a string: closing it would pass off half a text as the whole. A quote before the last
/// brackets ends the string all the same, and there is one quote too many elsewhere; brackets alone may be those of code.
fn is_cut(part: &str) -> bool {
    let without_brackets = part.trim_end_matches(|c: char| c.is_whitespace() || c == '}' || c == ']');
    matches!(scan(part), End::InString)
        && (without_brackets.len() == part.trim_end().len() || !without_brackets.ends_with('"'))
}

/// Contents of ``` blocks that start like JSON; a last block may be open.
fn fenced(text: &str) -> Vec<&str> {
    let mut blocks = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("```") {
        let after = &rest[start + 3..];
        let body_start = after.find(['\n', '{', '[']).unwrap_or(after.len());
        let body = &after[body_start..];
        // A fence inside a JSON string (code in a field) stands after a quote, so it does not start a line.
        let end = body.find("\n```").or_else(|| body.trim_end().strip_suffix("```").map(str::len));
        let block = body[..end.unwrap_or(body.len())].trim();
        if block.starts_with(['{', '[']) {
            blocks.push(block);
        }
        rest = end.map_or("", |end| body[end..].trim_start_matches('\n').trim_start_matches("```"));
    }
    blocks
}

/// Outermost `{…}` and `[…]`, brackets in strings not counted; one that does not close runs to the end of the text.
fn balanced(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(start) = text[from..].find(['{', '[']).map(|offset| from + offset) {
        if found.len() == PARTS_MAX {
            break;
        }
        let End::At(end) = scan(&text[start..]) else {
            found.push(&text[start..]);
            break;
        };
        found.push(&text[start..start + end]);
        from = start + end;
    }
    found
}

/// Where the bracketed value that a text starts with ends.
enum End {
    /// After so many bytes.
    At(usize),
    /// Not; the text is over inside a string.
    InString,
    /// Not; brackets are open.
    Open,
}

fn scan(text: &str) -> End {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return End::At(at + 1);
                }
            }
            _ => {}
        }
    }
    if in_string { End::InString } else { End::Open }
}

/// Doubles backslashes that start no escape (`\d`, `C:\x`) and escapes raw control characters in strings.
fn mend_escapes(text: &str) -> Option<Value> {
    let mut out = String::with_capacity(text.len() + 16);
    let mut in_string = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                in_string = !in_string;
                out.push(c);
            }
            '\\' if in_string => match chars.peek().copied() {
                Some('\'') => {}
                Some(next @ ('"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't')) => {
                    out.extend(['\\', next]);
                    chars.next();
                }
                Some('u') if is_hex4(chars.clone().skip(1)) => out.push('\\'),
                _ => out.push_str("\\\\"),
            },
            '\n' if in_string => out.push_str("\\n"),
            '\t' if in_string => out.push_str("\\t"),
            '\r' if in_string => out.push_str("\\r"),
            c if in_string && c.is_control() => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    serde_json::from_str(&out).ok()
}

fn is_hex4(chars: impl Iterator<Item = char>) -> bool {
    chars.take(4).filter(char::is_ascii_hexdigit).count() == 4
}

fn by_jsonrepair(text: &str) -> Option<Value> {
    serde_json::from_str(&jsonrepair_rs::jsonrepair(text).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// The first reading, as the tests without a schema see it.
    fn first(text: &str) -> Option<Value> {
        readings(text).next().map(|reading| reading.value)
    }

    #[test]
    fn broken_answers_are_read_as_they_were_meant() {
        let ab = || json!({"a": 1, "b": [2, 3]});
        let samples: Vec<(&str, Value)> = vec![
            (r#"{"a":1,"b":[2,3]}"#, ab()),
            ("```json\n{\"a\":1,\"b\":[2,3]}\n```", ab()),
            ("```\n{\"a\":1,\"b\":[2,3]}\n```\nHope this helps!", ab()),
            ("```json\n{\"a\":1,\"b\":[2,3]}", ab()),
            ("Sure! Here is the plan:\n{\"a\":1,\"b\":[2,3]}\nLet me know.", ab()),
            ("<think>maybe {\"a\":0}? no</think>\n{\"a\":1,\"b\":[2,3]}", ab()),
            ("maybe {\"a\":0}? no</think>{\"a\":1,\"b\":[2,3]}", ab()),
            (r#"{"a":1,"b":[2,3],}"#, ab()),
            (r#"{'a':1,'b':[2,3]}"#, ab()),
            (r#"{a:1,b:[2,3]}"#, ab()),
            ("{\"a\":1, // one\n\"b\":[2,3] /* list */}", ab()),
            (r#"{"a":1 "b":[2 3]}"#, ab()),
            (r#"{"a":1,"b":[2,3]"#, ab()),
            (r#"{"a":1,"b":[2,3"#, ab()),
            ("\u{feff}{\"a\":1,\"b\":[2,3]}", ab()),
            ("{\u{201c}a\u{201d}:1,\u{201c}b\u{201d}:[2,3]}", ab()),
            (r#"{"ok": True, "none": None}"#, json!({"ok": true, "none": null})),
            ("{\"text\": \"line one\nline two\ttab\"}", json!({"text": "line one\nline two\ttab"})),
            (r#"{"re": "\d+\.\w", "path": "C:\users\x"}"#, json!({"re": r"\d+\.\w", "path": r"C:\users\x"})),
            (r#"{"say": "it\'s \u00e9"}"#, json!({"say": "it's é"})),
            (r#"{"say": "He said "hi" to me"}"#, json!({"say": "He said \"hi\" to me"})),
            (r#"{"code": "if (x) { return [1]; }", "n": 1,}"#, json!({"code": "if (x) { return [1]; }", "n": 1})),
            ("Answer: [1, 2, 3] and no more", json!([1, 2, 3])),
            ("{\"md\": \"```py\\nprint(1)\\n```\", \"n\": 2}", json!({"md": "```py\nprint(1)\n```", "n": 2})),
            (
                "```json\n{\"md\": \"```py\\nprint(1)\\n```\", \"n\": 2}\n```",
                json!({"md": "```py\nprint(1)\n```", "n": 2}),
            ),
            ("  42 ", json!(42)),
        ];
        assert!(samples.len() >= 20);
        for (text, expected) in samples {
            assert_eq!(first(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn prose_is_not_json() {
        for text in ["", "I cannot do that.", "<think>{\"a\":1}</think>", "<think>{\"a\":1}", "null and void"] {
            assert!(first(text).is_none(), "{text}");
        }
    }

    #[test]
    fn json_that_speaks_of_thoughts_is_read_as_it_stands() {
        let value = json!({"files": [{"path": "a.py", "content": "cut <think> to </think> out, then </think>"}]});
        for text in [
            value.to_string(),
            format!("```json\n{value}\n```"),
            format!("<think>{{\"a\":0}} or [</think>Here [as agreed]:\n{value}"),
            format!("{{\"a\":0}}? no.\n</think>\n{value}"),
        ] {
            let reading = readings(&text).next().unwrap();
            assert_eq!((reading.value, reading.repaired), (value.clone(), false), "{text}");
        }
    }

    #[test]
    fn a_text_cut_inside_a_string_is_not_completed() {
        for text in [
            r#"{"answer": "if (x) { return }"#,
            r#"{"answer": "half of"#,
            r#"{"a": 1, "answ"#,
            "```json\n{\"a\": [\"x\", \"y",
        ] {
            assert!(first(text).is_none(), "{text}");
        }
    }

    #[test]
    fn only_changed_json_counts_as_repaired() {
        assert!(!readings("see: {\"a\":1}").next().unwrap().repaired);
        assert!(readings("see: {\"a\":1,}").next().unwrap().repaired);
    }

    #[test]
    fn several_values_are_all_offered() {
        let values: Vec<Value> =
            readings("for example {\"a\":0}; so: {\"a\":1}").map(|reading| reading.value).collect();
        assert!(values.contains(&json!({"a": 0})) && values.contains(&json!({"a": 1})), "{values:?}");
    }

    #[test]
    fn hostile_shapes_end_soon() {
        let started = std::time::Instant::now();
        for part in ["[", "{\"a\":", "\"", "\\", "{", "'", "/*", "```", "<think>", "[{", "\u{201c}", ",", "a:"] {
            let text = part.repeat(128 * 1024 / part.len());
            let readings = readings(&format!("{{{text}")).count() + readings(&text).count();
            assert!(readings < 100, "{part}");
        }
        assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(?s).{0,200}") {
            let _ = readings(&text).count();
        }

        #[test]
        fn no_nearly_json_makes_it_panic(text in r#"[\[\]{}":,\\/*'`a1 \n<>tu-]{0,120}"#) {
            let _ = readings(&text).count();
        }

        #[test]
        fn json_in_prose_is_found_unchanged(key in "[a-z]{1,8}", text in "[^\\p{C}]{0,40}", number in any::<i64>()) {
            let value = json!({key: [text, number]});
            let text = format!("Here you are:\n```json\n{value}\n```\n");
            prop_assert!(readings(&text).any(|reading| reading.value == value && !reading.repaired));
        }
    }
}
