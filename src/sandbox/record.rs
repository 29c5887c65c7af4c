//! What the helper process tells the worker at the end of a run: `key=value` lines, an empty line, then raw bytes.
//!
//! The helper is ours and stands outside the wall, but it has seen hostile output; so the worker reads with bounds.

/// First line, so that a helper of another version is noticed.
const HEADING: &str = "oarlock-sandbox 1";

/// Everything observed about one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    /// The wall stood and Python was about to be executed.
    pub ready: bool,
    /// Why the wall could not be built.
    pub setup_error: Option<String>,
    pub exit: Option<i32>,
    pub signal: Option<i32>,
    /// Why the helper ended the run, if it did.
    pub stopped: Option<(Stop, String)>,
    pub wall_ms: u64,
    pub peak_memory_bytes: u64,
    pub stragglers: u32,
    pub layers: Vec<String>,
    /// Why there is no report although the file is not simply empty.
    pub report_error: Option<String>,
    pub output_bytes: u64,
    pub head: Vec<u8>,
    pub tail: Vec<u8>,
    pub report: Vec<u8>,
}

/// Which bound ended a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Timeout,
    Memory,
    OutputFlood,
    Killed,
    /// The worker went away or changed its mind.
    Cancelled,
}

const STOPS: [(Stop, &str); 5] = [
    (Stop::Timeout, "timeout"),
    (Stop::Memory, "memory"),
    (Stop::OutputFlood, "output_flood"),
    (Stop::Killed, "killed"),
    (Stop::Cancelled, "cancelled"),
];

impl Record {
    /// The bytes from which [`Record::decode`] makes the same record.
    pub fn encode(&self) -> Vec<u8> {
        let mut lines = vec![HEADING.to_owned()];
        let mut line = |key: &str, value: String| lines.push(format!("{key}={}", value.replace('\n', " ")));
        line("ready", self.ready.to_string());
        line("wall_ms", self.wall_ms.to_string());
        line("peak_memory_bytes", self.peak_memory_bytes.to_string());
        line("stragglers", self.stragglers.to_string());
        line("output_bytes", self.output_bytes.to_string());
        self.setup_error.iter().for_each(|text| line("setup_error", text.clone()));
        self.report_error.iter().for_each(|text| line("report_error", text.clone()));
        self.exit.iter().for_each(|code| line("exit", code.to_string()));
        self.signal.iter().for_each(|signal| line("signal", signal.to_string()));
        self.layers.iter().for_each(|layer| line("layer", layer.clone()));
        if let Some((stop, reason)) = &self.stopped {
            let name = STOPS.iter().find(|(known, _)| known == stop).map_or("killed", |(_, name)| name);
            line("stopped", format!("{name} {reason}"));
        }
        line("parts", format!("{} {} {}", self.head.len(), self.tail.len(), self.report.len()));
        let mut bytes = lines.join("\n").into_bytes();
        bytes.extend_from_slice(b"\n\n");
        [&self.head, &self.tail, &self.report].into_iter().for_each(|part| bytes.extend_from_slice(part));
        bytes
    }

    /// Reads what [`Record::encode`] wrote; `None` if anything is missing or unknown.
    pub fn decode(bytes: &[u8]) -> Option<Record> {
        let end = bytes.windows(2).position(|pair| pair == b"\n\n")?;
        let text = std::str::from_utf8(&bytes[..end]).ok()?;
        let mut record = Record::default();
        let mut parts = Vec::new();
        let mut lines = text.lines();
        if lines.next() != Some(HEADING) {
            return None;
        }
        for line in lines {
            let (key, value) = line.split_once('=')?;
            match key {
                "ready" => record.ready = value.parse().ok()?,
                "wall_ms" => record.wall_ms = value.parse().ok()?,
                "peak_memory_bytes" => record.peak_memory_bytes = value.parse().ok()?,
                "stragglers" => record.stragglers = value.parse().ok()?,
                "output_bytes" => record.output_bytes = value.parse().ok()?,
                "setup_error" => record.setup_error = Some(value.to_owned()),
                "report_error" => record.report_error = Some(value.to_owned()),
                "exit" => record.exit = Some(value.parse().ok()?),
                "signal" => record.signal = Some(value.parse().ok()?),
                "layer" => record.layers.push(value.to_owned()),
                "stopped" => {
                    let (name, reason) = value.split_once(' ')?;
                    let (stop, _) = STOPS.iter().find(|(_, known)| *known == name)?;
                    record.stopped = Some((*stop, reason.to_owned()));
                }
                "parts" => parts = value.split(' ').map_while(|length| length.parse::<usize>().ok()).collect(),
                _ => return None,
            }
        }
        let [head, tail, report] = parts[..] else { return None };
        let body = &bytes[end + 2..];
        let after_head = head.checked_add(tail)?;
        record.head = body.get(..head)?.to_vec();
        record.tail = body.get(head..after_head)?.to_vec();
        record.report = body.get(after_head..after_head.checked_add(report)?)?.to_vec();
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_round_trip() {
        let record = Record {
            ready: true,
            exit: Some(1),
            signal: None,
            stopped: Some((Stop::OutputFlood, "more than 5 bytes".to_owned())),
            layers: vec!["seccomp".to_owned(), "landlock abi 6".to_owned()],
            head: b"head\n\nwith empty line".to_vec(),
            tail: vec![0xff, 0],
            report: b"<xml/>".to_vec(),
            ..Record::default()
        };
        assert_eq!(Record::decode(&record.encode()), Some(record));
    }

    #[test]
    fn cut_or_foreign_bytes_are_refused() {
        let whole = Record { head: b"abc".to_vec(), ..Record::default() }.encode();
        assert!(Record::decode(&whole).is_some());
        assert_eq!(Record::decode(&whole[..whole.len() - 1]), None);
        assert_eq!(Record::decode(b"hello\n\n"), None);
    }
}
