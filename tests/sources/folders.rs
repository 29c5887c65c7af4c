//! Directories and files as they are attached: bounded, consistent, and never beyond where they were asked for.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use oarlock::sources::{Collected, Links, collect, read_still};
use oarlock::wire::{FilePath, limits};

fn names(collected: &Collected) -> Vec<&str> {
    collected.files.keys().map(FilePath::as_str).collect()
}

fn write(folder: &Path, name: &str, content: impl AsRef<[u8]>) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

#[test]
fn a_directory_gives_its_texts_without_what_is_ignored_hidden_linked_binary_or_too_large() {
    let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let root = folder.path();
    write(root, "README.md", "read me");
    write(root, "src/main.py", "print(1)");
    write(root, ".gitignore", "*.log\nbuild/\n!keep.log\n");
    write(root, "src/.gitignore", "generated.py\n");
    write(root, "src/generated.py", "no");
    write(root, "a.log", "no");
    write(root, "keep.log", "yes");
    write(root, "build/x.txt", "no");
    write(root, ".env", "SECRET=1");
    write(root, ".git/config", "no");
    write(root, "pic.png", b"\x89PNG\0\0");
    write(root, "latin.txt", b"caf\xe9");
    write(root, "big.txt", vec![b'x'; limits::FILE_BYTES_MAX + 1]);
    write(root, "odd:name.txt", "no");
    write(outside.path(), "secret.txt", "outside");
    symlink(outside.path().join("secret.txt"), root.join("link.txt")).unwrap();
    symlink(outside.path(), root.join("linked")).unwrap();
    symlink(root, root.join("circle")).unwrap();
    let pipe = std::process::Command::new("mkfifo").arg(root.join("pipe")).status().unwrap();
    assert!(pipe.success());
    let collected = collect(root, "app").unwrap();
    assert_eq!(names(&collected), ["app/README.md", "app/keep.log", "app/src/main.py"]);
    let told = collected.left_out.to_string();
    for says in ["2 binary", "pic.png", "1 over file_bytes_max (big.txt)", "4 links or devices", "1 with names"] {
        assert!(told.contains(says), "{says}: {told}");
    }
    assert_eq!(names(&collect(root, "").unwrap()), ["README.md", "keep.log", "src/main.py"]);
}

#[test]
fn a_directory_of_100_000_files_ends_quickly_with_a_word_on_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    for group in 0..100 {
        let inner = folder.path().join(format!("d{group}"));
        fs::create_dir(&inner).unwrap();
        (0..1_000).for_each(|number| drop(fs::File::create(inner.join(format!("{number}.bin"))).unwrap()));
    }
    let started = Instant::now();
    let why = collect(folder.path(), "x").unwrap_err();
    assert!(why.contains("attachments_max 64") && why.contains(".gitignore"), "{why}");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    // Nothing of it can be taken, and still it comes to an end.
    for group in 0..100 {
        let inner = folder.path().join(format!("d{group}"));
        (0..1_000).for_each(|number| {
            fs::rename(inner.join(format!("{number}.bin")), inner.join(format!("{number}:x"))).unwrap();
        });
    }
    let started = Instant::now();
    let why = collect(folder.path(), "x").unwrap_err();
    assert!(why.contains("entries_max 20000"), "{why}");
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    // With what its own .gitignore leaves, it is a small directory.
    write(folder.path(), ".gitignore", "d*/\n");
    write(folder.path(), "notes.txt", "small");
    assert_eq!(names(&collect(folder.path(), "x").unwrap()), ["x/notes.txt"]);
}

#[test]
fn too_many_bytes_are_refused_as_well() {
    let folder = tempfile::tempdir().unwrap();
    (0..9).for_each(|number| write(folder.path(), &format!("{number}.txt"), vec![b'x'; 1_000_000]));
    let why = collect(folder.path(), "x").unwrap_err();
    assert!(why.contains("files_bytes_max"), "{why}");
}

#[test]
fn a_file_that_changes_while_it_is_read_is_refused_until_it_holds_still() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("moving.txt");
    fs::write(&path, vec![b'a'; 900_000]).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let (writing, stopped) = (path.clone(), stop.clone());
    let writer = std::thread::spawn(move || {
        let mut file = fs::OpenOptions::new().write(true).open(writing).unwrap();
        for letter in (b'a'..=b'z').cycle() {
            if stopped.load(Ordering::Relaxed) {
                return;
            }
            file.seek(SeekFrom::Start(0)).unwrap();
            for _ in 0..9 {
                file.write_all(&vec![letter; 100_000]).unwrap();
            }
        }
    });
    let started = Instant::now();
    let mut refused = 0;
    while started.elapsed() < Duration::from_secs(15) && refused == 0 {
        if let Err(why) = read_still(&path, Links::Followed) {
            assert!(why.contains("changes while it is read; attach a copy"), "{why}");
            refused += 1;
        }
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    assert!(refused > 0, "a file that never holds still was read");
    assert_eq!(read_still(&path, Links::Followed).unwrap().len(), 900_000, "and it is taken when it holds still");
}

#[test]
fn a_link_is_followed_only_by_its_name_and_a_device_never() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.txt", "a");
    symlink("a.txt", folder.path().join("link")).unwrap();
    assert_eq!(read_still(&folder.path().join("link"), Links::Followed).unwrap(), b"a");
    assert!(read_still(&folder.path().join("link"), Links::Refused).is_err());
    assert!(read_still(Path::new("/dev/zero"), Links::Followed).unwrap_err().contains("no regular file"));
    assert!(std::process::Command::new("mkfifo").arg(folder.path().join("pipe")).status().unwrap().success());
    let started = Instant::now();
    assert!(read_still(&folder.path().join("pipe"), Links::Followed).unwrap_err().contains("no regular file"));
    assert!(started.elapsed() < Duration::from_secs(1), "a pipe must not be waited for");
}
