//! Makes a new input of a kept one: in its bytes, and when it is JSON in its values, so that what comes out is often still
//! JSON of nearly the right shape. The same seed gives the same input.

use serde_json::{Map, Value, json};

/// Changes of one input, at most.
const CHANGES_MAX: u64 = 5;

/// Words that the readers know, and pieces that readers trip over, with `~` between them.
const TOKENS: &str = "{~}~[~]~:~,~\"~\\~\\\"~\\u0000~\\ud800~\u{feff}~\u{2028}~\u{202e}~\u{130}~\u{e9}~\u{0}~\n~\r\n~\n---\n~\
    ---\n~```json\n~\n```~<think>~</think>~null~true~-0~1e999~0.1~4294967295~18446744073709551615~\
    -9223372036854775808~+1~01~NaN~None~//~/*~#~'~\u{201c}~&a ~*a~- ~: ~|\n  ~? ~!!str ~<<: ~{{ goal }}~\
    {% if x %}~{% endif %}~{% for x in y %}~{% endfor %}~{# ~task~coder~qa~planner~orchestrator~user~t1~t10~\
    over7~run~oarlock.result.coder.r.t1.1~oarlock.task.qa.r.t2.+1~oarlock.stored.qa.r.t2.01~../~a/b~A/b~.git~\
    com1~nul.txt~v~kind~status~completed~depends_on~tasks~rules~match~response";

/// A small generator of the family xorshift: good enough here, and the same everywhere.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    /// A number below `end`; 0 when there is none.
    pub fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { usize::try_from(self.number()).unwrap_or(0) % end }
    }

    fn token(&mut self) -> &'static str {
        let at = self.below(TOKENS.split('~').count());
        TOKENS.split('~').nth(at).unwrap_or_default()
    }
}

/// A mutation of `data`, at most `bytes_max` long, perhaps with parts of `other`.
pub fn mutate(data: &[u8], other: &[u8], seed: u64, bytes_max: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    let parsed = serde_json::from_slice::<Value>(data).ok().filter(|value| value.is_object() || value.is_array());
    let mut out = match parsed {
        Some(mut value) if random.below(4) > 0 => {
            let donor = serde_json::from_slice::<Value>(other).unwrap_or(Value::Null);
            for _ in 0..=random.number() % CHANGES_MAX {
                change_value(&mut value, &donor, &mut random);
            }
            value.to_string().into_bytes()
        }
        _ => {
            let mut bytes = data.to_vec();
            for _ in 0..=random.number() % CHANGES_MAX {
                change_bytes(&mut bytes, other, &mut random);
            }
            bytes
        }
    };
    out.truncate(bytes_max);
    out
}

fn change_bytes(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let at = random.below(bytes.len() + 1);
    let end = at + random.below((bytes.len() - at).min(64) + 1);
    match random.below(8) {
        0 => drop(bytes.drain(at..end)),
        1 => {
            let part = bytes[at..end].to_vec();
            let times = random.below(8) + 1;
            drop(bytes.splice(at..at, part.repeat(times)));
        }
        2 => {
            let from = random.below(other.len() + 1);
            let to = from + random.below((other.len() - from).min(256) + 1);
            drop(bytes.splice(at..end, other[from..to].iter().copied()));
        }
        3 if at < bytes.len() => bytes[at] = random.number().to_le_bytes()[0],
        4 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        5 => bytes.truncate(at),
        _ => drop(bytes.splice(at..at, random.token().bytes())),
    }
}

/// Changes one value somewhere in a tree.
fn change_value(value: &mut Value, donor: &Value, random: &mut Random) {
    let deeper = random.below(4) > 0;
    match value {
        Value::Array(items) if deeper && !items.is_empty() => {
            let at = random.below(items.len());
            change_value(&mut items[at], donor, random);
        }
        Value::Object(fields) if deeper && !fields.is_empty() => {
            let at = random.below(fields.len());
            fields.values_mut().skip(at).take(1).for_each(|field| change_value(field, donor, random));
        }
        Value::Array(items) => change_items(items, donor, random),
        Value::Object(fields) => change_fields(fields, donor, random),
        leaf => *leaf = other_leaf(leaf, random),
    }
}

fn change_items(items: &mut Vec<Value>, donor: &Value, random: &mut Random) {
    let at = random.below(items.len());
    match random.below(6) {
        0 if !items.is_empty() => drop(items.remove(at)),
        1 if !items.is_empty() => {
            let copies = vec![items[at].clone(); random.below(6) + 1];
            items.extend(copies);
        }
        2 if !items.is_empty() => {
            let to = random.below(items.len());
            items.swap(at, to);
        }
        3 => items.push(part_of(donor, random)),
        4 => items.push(Value::from(random.token())),
        _ => items.push(number(random)),
    }
}

fn change_fields(fields: &mut Map<String, Value>, donor: &Value, random: &mut Random) {
    let name = fields.keys().nth(random.below(fields.len())).cloned().unwrap_or_default();
    match random.below(6) {
        0 => drop(fields.shift_remove(&name)),
        1 => drop(fields.insert(name, part_of(donor, random))),
        2 => drop(fields.insert(random.token().to_owned(), number(random))),
        3 => {
            let value = fields.shift_remove(&name).unwrap_or_default();
            fields.insert(random.token().to_owned(), value);
        }
        4 => {
            let value = fields.get(&name).cloned().unwrap_or_default();
            fields.insert(name, json!([value]));
        }
        _ => drop(fields.insert(name, Value::from(random.token()))),
    }
}

fn part_of(donor: &Value, random: &mut Random) -> Value {
    let mut here = donor;
    while random.below(3) > 0 {
        let at = random.below(8);
        let next = match here {
            Value::Array(items) => items.get(at % items.len().max(1)),
            Value::Object(fields) => fields.values().nth(at % fields.len().max(1)),
            _ => None,
        };
        match next {
            Some(next) => here = next,
            None => break,
        }
    }
    here.clone()
}

fn number(random: &mut Random) -> Value {
    match random.below(6) {
        0 => json!(0),
        1 => json!(u32::MAX),
        2 => json!(u64::MAX),
        3 => json!(i64::MIN),
        4 => json!(0.5),
        _ => json!(random.below(300)),
    }
}

fn other_leaf(leaf: &Value, random: &mut Random) -> Value {
    match (leaf, random.below(6)) {
        (Value::String(text), 0..=2) => {
            let mut bytes = text.as_bytes().to_vec();
            change_bytes(&mut bytes, &[], random);
            Value::from(String::from_utf8_lossy(&bytes))
        }
        (_, 3) => Value::from(random.token()),
        (_, 4) => json!([leaf]),
        (_, 5) => Value::Null,
        (_, _) => number(random),
    }
}
