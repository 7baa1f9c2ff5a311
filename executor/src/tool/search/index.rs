//! The index of a folder: every passage, and BM25 over their terms.

use std::sync::Arc;

use bm25::{Embedder, EmbedderBuilder, Embedding, Scorer, TokenEmbedder, TokenEmbedding, Tokenizer};
use common::limits::SEARCH_TERMS_MAX;

use super::folder::{self, Listing};
use super::{passages, words};

/// Reasons for leaving files out that a log line names.
const REASONS_LOGGED_MAX: usize = 5;

/// A passage that can be found.
pub(super) struct Passage {
    pub(super) path: Arc<String>,
    /// The line it starts at, from 1.
    pub(super) line: usize,
    pub(super) text: String,
}

/// Terms are hashed to 64 bits.
type Term = u64;

/// An index, and what it was made from.
pub(super) struct Index {
    pub(super) files: Listing,
    passages: Vec<Passage>,
    scorer: Scorer<usize, Term>,
}

struct Terms;

impl Tokenizer for Terms {
    fn tokenize(&self, text: &str) -> Vec<String> {
        words::terms(text)
    }
}

impl Index {
    /// Reads and indexes every listed document. What cannot be read is logged and left out.
    pub(super) fn make(files: Listing) -> Self {
        let mut left_out: Vec<String> = files.left_out.iter().cloned().collect();
        let mut passages = Vec::new();
        let mut searched = Vec::new();
        for (path, document) in &files.documents {
            let text = match folder::read(document) {
                Ok(text) => text,
                Err(why) => {
                    left_out.push(format!("{path}: {why}"));
                    continue;
                }
            };
            let path = Arc::new(path.clone());
            for passages::Part { line, text, heading } in passages::split(&text) {
                // The file's name and the heading often say what a passage is about.
                searched.push(format!("{path} {heading} {text}"));
                passages.push(Passage { path: Arc::clone(&path), line, text });
            }
        }
        let texts: Vec<&str> = searched.iter().map(String::as_str).collect();
        let embedder: Embedder<Term, Terms> = EmbedderBuilder::with_tokenizer_and_fit_to_corpus(Terms, &texts).build();
        let mut scorer = Scorer::new();
        for (id, text) in texts.into_iter().enumerate() {
            scorer.upsert(&id, embedder.embed(text));
        }
        log(&files, &passages, &left_out);
        Self { files, passages, scorer }
    }

    /// The best passages with their scores, best first; equally good ones in the order of files and lines.
    pub(super) fn find(&self, query: &str, limit: usize) -> Vec<(&Passage, f32)> {
        let terms = words::query_terms(query, SEARCH_TERMS_MAX);
        let query = terms.iter().map(|term| TokenEmbedding { index: <Term as TokenEmbedder>::embed(term), value: 1.0 });
        let mut found = self.scorer.matches(&Embedding(query.collect()));
        found.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.id.cmp(&b.id)));
        found.iter().take(limit).filter_map(|hit| Some((self.passages.get(hit.id)?, hit.score))).collect()
    }
}

fn log(files: &Listing, passages: &[Passage], left_out: &[String]) {
    let (documents, passages) = (files.documents.len(), passages.len());
    tracing::info!(documents, passages, "indexed {documents} documents as {passages} passages for search");
    if !left_out.is_empty() {
        let (count, reasons) = (left_out.len(), left_out[..left_out.len().min(REASONS_LOGGED_MAX)].join("; "));
        tracing::warn!(count, "search leaves out {count} entries of its folder: {reasons}");
    }
}
