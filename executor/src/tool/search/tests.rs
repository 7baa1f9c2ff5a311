use std::fs;
use std::process::Command;
use std::thread;

use common::limits::{PASSAGE_CHARS_MAX, SEARCH_FILE_BYTES_MAX, SEARCH_RESULTS_MAX};
use tempfile::TempDir;

use super::*;

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        write(&folder, path, text);
    }
    folder
}

fn write(folder: &TempDir, path: &str, text: &str) {
    let at = folder.path().join(path);
    fs::create_dir_all(at.parent().unwrap()).unwrap();
    fs::write(at, text).unwrap();
}

/// Expects a search to find exactly these `path:line`s, in this order.
fn check(search: &Search, query: &str, expected: &[&str]) {
    let found = search.find(query, SEARCH_RESULTS_MAX).unwrap();
    let places: Vec<String> =
        found.as_array().unwrap().iter().map(|hit| format!("{}:{}", hit["path"].as_str().unwrap(), hit["line"])).collect();
    assert_eq!(places, expected, "{query}");
}

#[test]
fn passages_are_found_by_their_words() {
    let folder = folder(&[
        ("policies/refunds.md", "# Shipping\nWe ship on Mondays.\n\n# Digital goods\nRefunds within 14 days.\n"),
        ("notes.TXT", "A refund took 30 days.\n\nÜBERWEISUNG an Straße 5."),
        ("thesis.markdown", "東京の天気は晴れ"),
        ("data.csv", "refund,14"),
        (".hidden.md", "refund"),
        ("empty.md", ""),
    ]);
    let search = Search::open(folder.path()).unwrap();
    check(&search, "refund of digital goods", &["policies/refunds.md:4", "policies/refunds.md:1", "notes.TXT:1"]);
    check(&search, "überweisung STRASSE Straße", &["notes.TXT:1"]);
    check(&search, "天気", &["thesis.markdown:1"]);
    check(&search, "monday", &["policies/refunds.md:1"]);
    check(&search, "elephant", &[]);
    check(&search, "the", &[]);
    let hit = &search.find("14 days", 1).unwrap()[0];
    assert_eq!(hit["passage"], "# Digital goods\nRefunds within 14 days.");
    assert!(hit["score"].as_f64().unwrap() > 0.0);
}

#[test]
fn queries_are_words_and_never_paths() {
    let outside = folder(&[("secret.txt", "needle")]);
    let folder = folder(&[("a.md", "haystack")]);
    let search = Search::open(folder.path()).unwrap();
    let outside = outside.path().join("secret.txt").display().to_string();
    for query in ["../secret.txt", &outside, "/etc/passwd", "/proc/self/environ", "*", "", "\0\u{202e}", "needle' OR 1=1 --"] {
        check(&search, query, &[]);
    }
    check(&search, &"x ".repeat(32 << 10), &[]);
}

#[cfg(unix)]
#[test]
fn only_regular_files_of_the_folder_are_read() {
    use std::os::unix::fs::symlink;

    let outside = folder(&[("secret.txt", "needle"), ("deep/secret.md", "needle")]);
    let folder = folder(&[("..data/real.md", "needle in a mounted file"), ("a.md", "haystack"), ("sub/b.md", "haystack")]);
    let link = |target: &Path, name: &str| symlink(target, folder.path().join(name)).unwrap();
    link(&outside.path().join("secret.txt"), "out.txt");
    link(outside.path(), "outside");
    link(Path::new("/proc/self/environ"), "environ.txt");
    link(Path::new("/dev/zero"), "zero.txt");
    link(Path::new("nowhere"), "broken.md");
    link(Path::new("round.md"), "round.md");
    link(folder.path(), "sub/up");
    link(Path::new("..data/real.md"), "mounted.md");
    assert!(Command::new("mkfifo").arg(folder.path().join("pipe.txt")).status().unwrap().success());
    let search = Search::open(folder.path()).unwrap();
    check(&search, "needle", &["mounted.md:1"]);
    check(&search, "haystack", &["a.md:1", "sub/b.md:1"]);
    let left_out = search.current_index().unwrap().files.left_out.iter().cloned().collect::<Vec<_>>().join("\n");
    for (path, why) in
        [("out.txt", "leads out"), ("environ.txt", "leads out"), ("zero.txt", "leads out"), ("pipe.txt", "not a regular")]
    {
        assert!(left_out.lines().any(|line| line.starts_with(path) && line.contains(why)), "{path} not in {left_out}");
    }
}

#[test]
fn odd_files_are_read_as_far_as_possible() {
    let folder = folder(&[("bom.txt", "\u{feff}# Heading\nneedle")]);
    let put = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    put("latin1.txt", b"na\xefve needle");
    put("binary.txt", b"needle\0\x01\x02");
    put("huge.txt", &vec![b'x'; usize::try_from(SEARCH_FILE_BYTES_MAX).unwrap() + 1]);
    put("line.txt", &b"needle ".repeat(2_000));
    let search = Search::open(folder.path()).unwrap();
    let found = search.find("needle", SEARCH_RESULTS_MAX).unwrap();
    let hits = found.as_array().unwrap();
    assert!(hits.iter().all(|hit| hit["passage"].as_str().unwrap().chars().count() <= PASSAGE_CHARS_MAX));
    let paths = |name: &str| hits.iter().filter(|hit| hit["path"] == name).count();
    assert_eq!((paths("latin1.txt"), paths("binary.txt"), paths("huge.txt"), paths("line.txt")), (1, 0, 0, 15));
    check(&search, "heading", &["bom.txt:1"]);
    check(&search, "na\u{fffd}ve", &["latin1.txt:1"]);
}

#[test]
fn the_index_follows_the_folder() {
    let folder = folder(&[("a.md", "one")]);
    let search = Search::open(folder.path()).unwrap();
    check(&search, "one", &["a.md:1"]);
    let first = search.current_index().unwrap();
    assert!(Arc::ptr_eq(&first, &search.current_index().unwrap()), "nothing changed, yet there is another index");
    write(&folder, "sub/b.md", "one one");
    check(&search, "one", &["sub/b.md:1", "a.md:1"]);
    write(&folder, "a.md", "other words");
    check(&search, "one", &["sub/b.md:1"]);
    fs::remove_file(folder.path().join("sub/b.md")).unwrap();
    check(&search, "one", &[]);
    drop(folder);
    assert!(search.find("one", 1).unwrap_err().contains("cannot be read"));
}

#[test]
fn concurrent_searches_share_one_index() {
    let files: Vec<(String, String)> = (0..50).map(|n| (format!("{n}.md"), format!("needle {n}\n\n").repeat(200))).collect();
    let folder = folder(&files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect::<Vec<_>>());
    let search = Search::open(folder.path()).unwrap();
    let indexes: Vec<_> = thread::scope(|scope| {
        let running: Vec<_> = (0..8).map(|_| scope.spawn(|| search.current_index().unwrap())).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(indexes.iter().all(|index| Arc::ptr_eq(index, &indexes[0])));
}

#[test]
fn equally_good_passages_keep_their_order() {
    let folder = folder(&[("b.md", "needle"), ("a.md", "needle"), ("c.md", "needle")]);
    for _ in 0..20 {
        check(&Search::open(folder.path()).unwrap(), "needle", &["a.md:1", "b.md:1", "c.md:1"]);
    }
}

#[test]
fn a_folder_must_be_one() {
    let folder = folder(&[("a.md", "")]);
    assert!(Search::open(&folder.path().join("a.md")).is_err());
    assert!(Search::open(&folder.path().join("missing")).is_err());
}
