//! Shapes that readers trip over, at two lengths: eight times the input may take eight times as long, and not its square.

use std::time::Duration;

use crate::targets::TARGETS;

/// The lengths.
const SHORT: usize = 4 * 1024;
const LONG: usize = 8 * SHORT;
/// A square would be 64.
const GROWTH_MAX: u32 = 24;
/// What is over so soon is not looked at more closely.
const SOON: Duration = Duration::from_millis(40);
/// Times are known to so much.
const FINEST: Duration = Duration::from_millis(2);
/// Measurements of each length; the shortest counts.
const RUNS: usize = 2;

/// A beginning, what is repeated, an end; `#` in the middle is its number.
const SHAPES: [(&str, &str, &str); 34] = [
    ("", "[", ""),
    ("", "{\"a\":", ""),
    ("", "\"", ""),
    ("", "\\", ""),
    ("{\"a\":\"", "\\u0000", "\"}"),
    ("", "```", ""),
    ("", "```\n{", ""),
    ("", "<think>", ""),
    ("", "</think>", ""),
    ("", "<think></think>", "{}"),
    ("", "{}", ""),
    ("", "{'a':'b',", ""),
    ("[", "{},", "{}]"),
    ("{", "\"k#\":0,", "\"k\":0}"),
    ("{", "\"k\":0,", "\"k\":0}"),
    ("", "a b: \"c\" ", ""),
    ("", "/*", ""),
    ("", "a#\n", ""),
    ("", "a/b#\n", ""),
    ("", "a/a/a/a/a/a/a\n", ""),
    ("", "oarlock.task.coder.r.t#.1\n", ""),
    ("oarlock.", "task.", ""),
    ("{\"v\":1,\"tasks\":[", "{\"id\":\"t#\",\"description\":\"x\",\"role\":\"coder\"},", "{}]}"),
    ("{\"tasks\":[{\"id\":\"a\",\"description\":\"x\",\"depends_on\":[", "\"\",", "\"b\"]}]}"),
    ("{\"tasks\":[", "{\"id\":\"a#\",\"description\":\"x\"},", "{\"id\":\"b\",\"description\":\"x\"}]}"),
    ("{\"version\":1,\"rules\":[", "{\"response\":{\"content\":\"x\"}},", "{\"response\":{\"echo\":true}}]}"),
    ("{\"version\":1,\"rules\":[{\"match\":{\"task\":\"", "*a", "\"},\"response\":{\"content\":\"x\"}}]}"),
    ("{\"status\":\"completed\",\"content\":\"\",\"x\":[", "[],", "0]}"),
    ("{\"kind\":\"tests\",\"x\":", "[", ""),
    ("---\nname: coder\ndescription: x\nlimits: {time_s: 1, slots: 1}\noutput: ", "[", "\n---\nx"),
    ("---\nname: coder\ndescription: x\nlimits: {time_s: 1, slots: 1}\noutput:\n", "  k#: &a# [*a#]\n", "\n---\nx"),
    ("---\nname: coder\ndescription: x\nlimits: {time_s: 1, slots: 1}\n---\n", "{% if goal %}", ""),
    ("---\nname: coder\ndescription: x\nlimits: {time_s: 1, slots: 1}\n---\n", "{{ goal }}", ""),
    ("---\nname: coder\ndescription: x\nlimits: {time_s: 1, slots: 1}\n---\n{{ ", "(", ""),
];

fn shape((head, part, tail): (&str, &str, &str), length: usize) -> Vec<u8> {
    let mut text = head.to_owned();
    let mut number = 0u32;
    while text.len() + tail.len() < length {
        text += &part.replace('#', &number.to_string());
        number += 1;
    }
    (text + tail).into_bytes()
}

#[test]
fn eight_times_the_input_does_not_take_sixty_four_times_as_long() {
    let mut wrong = Vec::new();
    for target in TARGETS {
        let mut heap_per_byte = 0;
        for parts in SHAPES {
            let mut time = |length| {
                let data = shape(parts, length);
                let heap = target.check(&data);
                heap_per_byte = heap_per_byte.max(heap / length);
                (0..RUNS).map(|_| target.time(&data)).min().unwrap_or_default().max(FINEST)
            };
            let (short, long) = (time(SHORT), time(LONG));
            if long > SOON && long > short * GROWTH_MAX {
                wrong.push(format!("{}: {parts:?} takes {short:?}, and eight of it {long:?}", target.name));
            }
        }
        println!("{}: at most {heap_per_byte} bytes of heap for a byte of a growing shape", target.name);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
