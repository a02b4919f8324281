//! Lines are whole, files rotate, and one process writes each.

use super::*;

fn settings(path: &Path, max_bytes: u64, max_backups: u32) -> resolved::File {
    resolved::File { path: path.to_str().unwrap().to_owned(), max_bytes, max_backups }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn a_full_file_becomes_the_first_of_the_old_ones() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("{identity}.jsonl");
    let mut writer = FileWriter::open(&settings(&path, 10, 2), "gw-0").unwrap();
    for line in ["one", "two", "three", "four", "a line longer than a file", "six"] {
        writer.write(line.as_bytes().to_vec()).unwrap();
    }
    let file = |name: &str| read(&directory.path().join(name));
    assert_eq!(file("gw-0.jsonl"), "six\n");
    assert_eq!(file("gw-0.jsonl.1"), "a line longer than a file\n");
    assert_eq!(file("gw-0.jsonl.2"), "four\n");
    assert_eq!(file("gw-0.jsonl.3"), "");
}

#[test]
fn without_old_files_the_file_begins_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.jsonl");
    let mut writer = FileWriter::open(&settings(&path, 10, 0), "gw").unwrap();
    for line in ["one", "two", "three"] {
        writer.write(line.as_bytes().to_vec()).unwrap();
    }
    assert_eq!(read(&path), "three\n");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn a_line_that_a_kill_cut_is_ended_and_lines_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.jsonl");
    std::fs::write(&path, "whole\nhal").unwrap();
    let mut writer = FileWriter::open(&settings(&path, 1 << 20, 1), "gw").unwrap();
    writer.write(b"next".to_vec()).unwrap();
    assert_eq!(read(&path), "whole\nhal\nnext\n");
}

#[test]
fn what_can_never_work_is_told_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.jsonl");
    let _first = FileWriter::open(&settings(&path, 1 << 20, 1), "gw").unwrap();
    let second = FileWriter::open(&settings(&path, 1 << 20, 1), "gw").unwrap_err();
    assert!(second.contains("by another process: write {identity}"), "{second}");
    let nowhere = directory.path().join("no/a.jsonl");
    let told = FileWriter::open(&settings(&nowhere, 1 << 20, 1), "gw").unwrap_err();
    assert!(told.contains("its directory must exist"), "{told}");
}

#[test]
fn a_full_disk_is_an_error_and_the_next_line_is_tried_anew() {
    // What is written to this device finds no room.
    let full = Path::new("/dev/full");
    if !full.exists() {
        println!("skipped: a_full_disk: no /dev/full here");
        return;
    }
    let mut writer = FileWriter {
        path: full.to_owned(),
        max_bytes: 1 << 20,
        max_backups: 1,
        open: Some(Open { file: OpenOptions::new().append(true).open(full).unwrap(), bytes: 0 }),
    };
    let told = writer.write(b"line".to_vec()).unwrap_err();
    assert!(told.contains("/dev/full") && told.contains("No space left"), "{told}");
    assert!(writer.open.is_none());
    let directory = tempfile::tempdir().unwrap();
    writer.path = directory.path().join("a.jsonl");
    writer.write(b"line".to_vec()).unwrap();
    assert_eq!(read(&writer.path), "line\n");
}
