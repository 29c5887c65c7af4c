//! A known fault for a copy of some code, to see whether its tests notice: a function that raises an error as soon as it is
//! called. Any test that calls the function sees that, so tests that still pass test something else, or nothing.
//!
//! The code is read and not run, as for the promised tests (`names`): a function that the scan does not understand is left
//! alone.

use std::collections::{BTreeMap, BTreeSet};

use super::names::{function_name, is_test_file, without_strings};
use crate::wire::ContentHash;

/// What the function says that was made to fail.
const MESSAGE: &str = "this function was made to fail, to see whether a test notices";

/// Code with a fault in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faulty {
    /// All files, one of them changed.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Which function of which file was changed, and how.
    pub fault: String,
}

/// A function whose body could begin with a fault.
struct Place {
    path: String,
    name: String,
    /// The line before which the fault goes.
    line: usize,
    indent: String,
}

/// The files with one function of the code made to fail. Functions that a test names come first: whether the tests see the
/// one thing that they speak of is the fairest question. Of these the code alone picks one, so that other tests that name
/// the same functions meet the same fault. `None` when there is no such function.
pub fn with_fault(files: &BTreeMap<String, Vec<u8>>) -> Option<Faulty> {
    let texts = files.iter().filter(|(path, _)| path.ends_with(".py"));
    let texts = texts.filter_map(|(path, bytes)| Some((path, std::str::from_utf8(bytes).ok()?)));
    let (tests, code): (Vec<_>, Vec<_>) = texts.partition(|(path, _)| is_test_file(path));
    let named: BTreeSet<&str> =
        tests.iter().flat_map(|(_, text)| text.split(|c: char| !c.is_alphanumeric() && c != '_')).collect();
    let mut places: Vec<Place> = code.iter().flat_map(|(path, text)| places(path, text)).collect();
    if places.iter().any(|place| named.contains(place.name.as_str())) {
        places.retain(|place| named.contains(place.name.as_str()));
    }
    let code = code_under_test(files)?;
    let lot =
        |place: &Place| ContentHash::of(format!("{code} {} {} {}", place.path, place.line, place.name).as_bytes());
    let place = places.into_iter().min_by_key(|place| lot(place).to_string())?;
    let text = std::str::from_utf8(files.get(&place.path)?).ok()?;
    let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
    lines.insert(place.line.min(lines.len()), format!("{}raise RuntimeError({MESSAGE:?})\n", place.indent));
    let mut files = files.clone();
    files.insert(place.path.clone(), lines.concat().into_bytes());
    Some(Faulty { files, fault: format!("{}: {} raises an error", place.path, place.name) })
}

/// Identity of the Python files that are no tests, whatever tests them; `None` when there are none.
pub fn code_under_test(files: &BTreeMap<String, Vec<u8>>) -> Option<ContentHash> {
    let code = files.iter().filter(|(path, _)| path.ends_with(".py") && !is_test_file(path));
    let lines: String = code.map(|(path, bytes)| format!("{}  {path}\n", ContentHash::of(bytes))).collect();
    (!lines.is_empty()).then(|| ContentHash::of(lines.as_bytes()))
}

/// The public functions and methods of a source; `main` is left out, because it is rightly often tested by nobody.
fn places(path: &str, source: &str) -> Vec<Place> {
    let plain = without_strings(source);
    let lines: Vec<&str> = plain.lines().collect();
    let place = |(number, line): (usize, &&str)| {
        let name = function_name(line.trim()).filter(|name| !name.starts_with('_') && *name != "main")?;
        let body = number + header(&lines[number..])?;
        let first = lines[body..].iter().find(|line| !line.trim().is_empty())?;
        let indent = first[..first.len() - first.trim_start().len()].to_owned();
        let outer = line.len() - line.trim_start().len();
        (indent.len() > outer).then(|| Place { path: path.to_owned(), name: name.to_owned(), line: body, indent })
    };
    lines.iter().enumerate().filter_map(place).collect()
}

/// The lines that a function's header takes, up to the colon at the end of one; `None` for a body on the same line.
fn header(lines: &[&str]) -> Option<usize> {
    let mut depth = 0_usize;
    for (number, line) in lines.iter().enumerate() {
        depth += line.matches(['(', '[', '{']).count();
        depth = depth.checked_sub(line.matches([')', ']', '}']).count())?;
        if depth == 0 {
            return line.trim_end().ends_with(':').then_some(number + 1);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(files: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
        files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect()
    }

    fn changed(files: &[(&str, &str)], path: &str) -> (String, String) {
        let faulty = with_fault(&set(files)).expect("a function to change");
        let text = String::from_utf8(faulty.files[path].clone()).unwrap();
        (faulty.fault, text.replace(&format!("({MESSAGE:?})"), ""))
    }

    #[test]
    fn a_function_is_made_to_fail_wherever_its_body_begins() {
        for (source, wanted) in [
            ("def f(x):\n    return x\n", "def f(x):\n    raise RuntimeError\n    return x\n"),
            ("async def f():\n\treturn 1\n", "async def f():\n\traise RuntimeError\n\treturn 1\n"),
            (
                "class A:\n    def f(\n        self, a=\"):\",\n    ):  # why\n        \"\"\"\n   odd\n        \"\"\"\n",
                "class A:\n    def f(\n        self, a=\"):\",\n    ):  # why\n        raise RuntimeError\n        \"\"\"\n   odd\n        \"\"\"\n",
            ),
            ("def f():\n\n    # c\n    pass", "def f():\n    raise RuntimeError\n\n    # c\n    pass"),
        ] {
            let (fault, text) = changed(&[("a.py", source)], "a.py");
            assert_eq!((fault.as_str(), text.as_str()), ("a.py: f raises an error", wanted));
        }
    }

    #[test]
    fn what_a_test_names_comes_first() {
        let code = "def one():\n    return 1\n\ndef two():\n    return 2\n\ndef main():\n    one()\n";
        for number in 0..9 {
            let code = format!("{code}# {number}\n");
            let files = [("a.py", code.as_str()), ("test_a.py", "from a import two\n\ndef test_two():\n    pass\n")];
            assert_eq!(changed(&files, "a.py").0, "a.py: two raises an error");
        }
        let fault = |number: u8| changed(&[("a.py", &format!("{code}# {number}\n"))], "a.py").0;
        let faults: BTreeSet<String> = (0..9).map(fault).collect();
        assert_eq!(faults.len(), 2, "without tests that name one, each of the two: {faults:?}");
    }

    /// Whoever changes tests until another fault is drawn would pass in the end.
    #[test]
    fn other_tests_of_the_same_functions_meet_the_same_fault() {
        let body = |number: usize| format!("def f{number}():\n    return {number}\n\n");
        let code: String = (0..9).map(body).collect();
        let names: String = (0..9).map(|number| format!("a.f{number} ")).collect();
        let faults: BTreeSet<String> = (0..20)
            .map(|number| format!("import a\n# {names}\ndef test_it():\n    assert {number} == {number}\n"))
            .map(|tests| changed(&[("a.py", &code), ("test_a.py", &tests)], "a.py").0)
            .collect();
        assert_eq!(faults.len(), 1, "{faults:?}");
        let tests = |text: &str| code_under_test(&set(&[("a.py", &code), ("test_a.py", text)]));
        assert_eq!(tests("x"), tests("y"));
        assert_ne!(tests("x"), code_under_test(&set(&[("a.py", "pass")])));
        assert_eq!(code_under_test(&set(&[("test_a.py", "pass"), ("a.txt", "x")])), None);
    }

    #[test]
    fn what_cannot_be_changed_is_left_alone() {
        for source in [
            "x = 1\n",
            "def f(): return 1\n",
            "def _hidden():\n    return 1\n",
            "def main():\n    return 1\n",
            "'''\ndef f():\n    pass\n'''\n",
            "def f(",
            "def f():\n",
            "def f))(:\n    pass\n",
        ] {
            assert_eq!(with_fault(&set(&[("a.py", source)])), None, "{source}");
        }
        assert_eq!(with_fault(&set(&[("test_a.py", "def helper():\n    pass\n")])), None, "tests are not the code");
        let bytes = BTreeMap::from([("a.py".to_owned(), vec![0xff])]);
        assert_eq!(with_fault(&bytes), None);
    }
}
