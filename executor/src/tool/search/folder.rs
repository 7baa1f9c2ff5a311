//! The documents of a folder: which files are searched, and how they are read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use common::limits::{SEARCH_BYTES_MAX, SEARCH_DEPTH_MAX, SEARCH_ENTRIES_MAX, SEARCH_FILE_BYTES_MAX, SEARCH_FILES_MAX};

/// The endings of documents.
const ENDINGS: [&str; 3] = ["txt", "md", "markdown"];

/// A document, and how it was when it was listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Document {
    /// Where it is, without symbolic links; inside the folder.
    location: PathBuf,
    bytes: u64,
    changed: Option<SystemTime>,
}

/// What a folder holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Listing {
    /// The documents by their path in the folder, separated by `/`.
    pub(super) documents: BTreeMap<String, Document>,
    /// Why something is left out, for the operator.
    pub(super) left_out: BTreeSet<String>,
}

/// Lists the documents below `root`, which is free of symbolic links.
///
/// Only regular files are documents: looking at a FIFO or a device could block for ever. A symbolic link counts when it leads to a
/// file inside the folder (Kubernetes mounts configuration that way); linked folders are not entered. What starts with a dot is
/// hidden. Fails only when `root` itself cannot be read.
pub(super) fn list(root: &Path) -> io::Result<Listing> {
    let mut listing = Listing::default();
    let mut total_bytes = 0;
    let mut entries_seen = 0;
    let mut folders = vec![(root.to_owned(), String::new(), 0usize)];
    while let Some((folder, prefix, depth)) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(why) if depth == 0 => return Err(why),
            Err(why) => {
                listing.left_out.insert(format!("{prefix}: {why}"));
                continue;
            }
        };
        // In the order of names, so that caps leave out the same files each time.
        let names: BTreeSet<_> = entries.filter_map(Result::ok).map(|entry| entry.file_name()).take(SEARCH_ENTRIES_MAX).collect();
        for name in names {
            entries_seen += 1;
            if entries_seen > SEARCH_ENTRIES_MAX {
                listing.left_out.insert(format!("the folder has more than {SEARCH_ENTRIES_MAX} entries"));
                return Ok(listing);
            }
            // A name that is not UTF-8 could not be given to a model.
            let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else { continue };
            let (path, at) = (format!("{prefix}{name}"), folder.join(name));
            match look(root, &at) {
                Ok(Entry::Folder) if depth < SEARCH_DEPTH_MAX => folders.push((at, path + "/", depth + 1)),
                Ok(Entry::Folder) => {
                    listing.left_out.insert(format!("{path}: more than {SEARCH_DEPTH_MAX} folders deep"));
                }
                Ok(Entry::Document(document)) => match refuse(&document, listing.documents.len(), total_bytes) {
                    Some(why) => {
                        listing.left_out.insert(format!("{path}: {why}"));
                    }
                    None => {
                        total_bytes += document.bytes;
                        listing.documents.insert(path, document);
                    }
                },
                Ok(Entry::Other) => {}
                Err(why) => {
                    listing.left_out.insert(format!("{path}: {why}"));
                }
            }
        }
    }
    Ok(listing)
}

/// What an entry of a folder is to us.
enum Entry {
    Folder,
    Document(Document),
    Other,
}

fn look(root: &Path, at: &Path) -> io::Result<Entry> {
    let mut metadata = fs::symlink_metadata(at)?;
    if metadata.is_dir() {
        return Ok(Entry::Folder);
    }
    let ending = at.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase);
    if !ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str())) {
        return Ok(Entry::Other);
    }
    let mut location = at.to_owned();
    if metadata.is_symlink() {
        location = at.canonicalize()?;
        if !location.starts_with(root) {
            return Err(io::Error::other("leads out of the folder"));
        }
        metadata = fs::symlink_metadata(&location)?;
    }
    if !metadata.is_file() {
        return if metadata.is_dir() { Ok(Entry::Other) } else { Err(io::Error::other("is not a regular file")) };
    }
    Ok(Entry::Document(Document { location, bytes: metadata.len(), changed: metadata.modified().ok() }))
}

fn refuse(document: &Document, files: usize, total_bytes: u64) -> Option<String> {
    if document.bytes > SEARCH_FILE_BYTES_MAX {
        return Some(format!("has {} bytes, the limit is {SEARCH_FILE_BYTES_MAX}", document.bytes));
    }
    if files >= SEARCH_FILES_MAX {
        return Some(format!("there are {SEARCH_FILES_MAX} other files already"));
    }
    (total_bytes + document.bytes > SEARCH_BYTES_MAX).then(|| format!("all files together exceed {SEARCH_BYTES_MAX} bytes"))
}

/// The text of a document; what is not UTF-8 becomes `�`. Refuses binary data.
pub(super) fn read(document: &Document) -> io::Result<String> {
    // It may have changed since it was listed; opening a FIFO would block.
    if !fs::symlink_metadata(&document.location)?.is_file() {
        return Err(io::Error::other("is not a regular file"));
    }
    let file = File::open(&document.location)?;
    let mut bytes = Vec::new();
    file.take(SEARCH_FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    if bytes.contains(&0) {
        return Err(io::Error::other("is binary"));
    }
    Ok(String::from_utf8_lossy(&bytes).trim_start_matches('\u{feff}').to_owned())
}
