//! `search {query, limit?}`: the passages of a folder's documents that fit the query best, by BM25.
//!
//! The model chooses words, never a path: what can be read is what [`folder`] finds inside the folder. The index is made at the
//! first search and again when a file has come, gone or changed (size or time of change); concurrent searches share it.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use common::limits::SEARCH_RESULTS_DEFAULT;
use common::tool::ToolSpec;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use super::{CallContext, Tool, ToolError};

mod folder;
mod index;
mod passages;
#[cfg(test)]
mod tests;
mod words;

/// The tool. A cheap handle.
#[derive(Clone)]
pub(super) struct Search {
    /// The folder, without symbolic links.
    root: Arc<PathBuf>,
    /// What was indexed last. Held while an index is made, so that it is made once.
    index: Arc<Mutex<Option<Arc<index::Index>>>>,
}

impl Search {
    /// A search of `folder`, which must be a readable folder. Nothing is indexed yet.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        let root = folder.canonicalize()?;
        root.read_dir()?;
        Ok(Self { root: Arc::new(root), index: Arc::default() })
    }

    fn find(&self, query: &str, limit: usize) -> Result<Value, String> {
        let index = self.current_index()?;
        let found = index.find(query, limit).into_iter().map(|(passage, score)| {
            json!({
                "path": passage.path.as_str(),
                "line": passage.line,
                "passage": passage.text,
                "score": (f64::from(score) * 1000.0).round() / 1000.0,
            })
        });
        Ok(Value::Array(found.collect()))
    }

    fn current_index(&self) -> Result<Arc<index::Index>, String> {
        let files = folder::list(&self.root).map_err(|why| format!("the document folder cannot be read: {why}"))?;
        let mut last = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = last.as_ref().filter(|index| index.files == files) {
            return Ok(Arc::clone(index));
        }
        let index = Arc::new(index::Index::make(files));
        *last = Some(Arc::clone(&index));
        Ok(index)
    }
}

impl Tool for Search {
    fn spec(&self) -> ToolSpec {
        common::tool::search()
    }

    fn call<'a>(
        &'a self,
        arguments: Value,
        _ctx: &'a CallContext,
    ) -> Pin<Box<dyn Future<Output = Result<Value, ToolError>> + Send + 'a>> {
        Box::pin(async move {
            let query = arguments.get("query").and_then(Value::as_str).unwrap_or_default().to_owned();
            // The schema has seen to its range; 3.0 is a whole number, too.
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number from 1 to 20")]
            let limit = arguments.get("limit").and_then(Value::as_f64).map(|limit| limit as usize);
            let search = self.clone();
            // A search that nobody waits for any more ends by itself: files and their bytes are limited.
            let work = spawn_blocking(move || search.find(&query, limit.unwrap_or(SEARCH_RESULTS_DEFAULT)));
            match work.await {
                Ok(found) => found.map_err(ToolError),
                Err(_panic) => Err(ToolError("the search broke down".into())),
            }
        })
    }
}
