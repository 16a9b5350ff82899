//! A watch: changes as they happen, one line of JSON for each.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::unfold;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep_until};

use crate::clock;

use super::call::{AnswerShape, CallQuery};
use super::presenting::Presenting;
use super::refused::ApiError;
use super::selector::Selector;
use super::table;
use super::view::{Event, Item, View};

/// The default duration of a watch. [`LONGEST`] is the maximum.
const USUAL: Duration = Duration::from_secs(30 * 60);
const LONGEST: Duration = Duration::from_secs(60 * 60);
/// The interval between bookmarks, for clients that ask for them.
const BOOKMARKS: Duration = Duration::from_secs(60);

/// A watch: the objects that it covers, and the position from which it continues.
#[derive(Debug)]
pub(super) struct Watching {
    of: Presenting,
    namespace: Option<String>,
    selector: Selector,
    /// The caller knows the changes up to this version.
    position: u64,
    bookmarks: bool,
    lasts: Duration,
    /// The lines that are sent next.
    lines: VecDeque<Bytes>,
}

impl Watching {
    /// Starts a watch.
    ///
    /// # Errors
    ///
    /// The version is invalid, or the changes after it are no longer kept.
    pub(super) fn new(
        view: &View,
        query: &CallQuery,
        of: Presenting,
        namespace: Option<String>,
        selector: Selector,
    ) -> Result<Self, ApiError> {
        let version = match query.text("resourceVersion") {
            "" | "0" => None,
            text => {
                let version = text.parse::<u64>();
                Some(version.map_err(|_| {
                    ApiError::bad_request(format!("invalid resource version `{text}`"))
                })?)
            }
        };
        let lasts = match query.text("timeoutSeconds") {
            "" | "0" => USUAL,
            text => {
                let seconds = text.parse::<u64>();
                let seconds = seconds.map_err(|_| {
                    ApiError::bad_request(format!("invalid timeoutSeconds `{text}`"))
                })?;
                Duration::from_secs(seconds).min(LONGEST)
            }
        };
        let initial = query.is_true("sendInitialEvents");
        let bookmarks = query.is_true("allowWatchBookmarks");
        let mut watching = Self {
            of,
            namespace,
            selector,
            position: view.version,
            bookmarks,
            lasts,
            lines: VecDeque::new(),
        };
        match version {
            // A version from the future must be of another gateway.
            Some(version) if !initial => {
                if version < view.oldest || version > view.version {
                    return Err(ApiError::expired(version, view.oldest));
                }
                watching.position = version;
                watching.advance(view);
            }
            _ => watching.lines = watching.initial(view, initial && bookmarks),
        }
        Ok(watching)
    }

    /// Returns all matching objects, as if they had just been created.
    fn initial(&self, view: &View, mark_the_end: bool) -> VecDeque<Bytes> {
        let items = view.list(self.of.resource.kind(), self.namespace.as_deref());
        let items =
            items.filter(|item| self.selector.is_empty() || self.selector.accepts(&item.value()));
        let mut lines: VecDeque<Bytes> =
            items.map(|item| line("ADDED", self.shown(item))).collect();
        if mark_the_end {
            let end = json!({ "k8s.io/initial-events-end": "true" });
            lines.push_back(line("BOOKMARK", self.bookmark(Some(end))));
        }
        lines
    }

    /// Adds the changes up to `view`. Returns false if some of them are no longer kept.
    fn advance(&mut self, view: &View) -> bool {
        if self.position < view.oldest {
            let gone = ApiError::expired(self.position, view.oldest).status();
            self.lines.push_back(line("ERROR", gone));
            return false;
        }
        let new = view.events.iter().filter(|event| event.version > self.position);
        let lines: Vec<Bytes> = new.filter_map(|event| self.line_of(event)).collect();
        self.lines.extend(lines);
        self.position = view.version;
        true
    }

    fn line_of(&self, event: &Event) -> Option<Bytes> {
        let matching = |item: &Arc<Item>| {
            item.key.kind == self.of.resource.kind()
                && self.namespace.as_ref().is_none_or(|one| item.key.namespace == *one)
                && (self.selector.is_empty() || self.selector.accepts(&item.value()))
        };
        let before = event.before.as_ref().filter(|item| matching(item));
        let after = event.after.as_ref().filter(|item| matching(item));
        match (before, after) {
            (None, None) => None,
            (None, Some(after)) => Some(line("ADDED", self.shown(after))),
            (Some(_), Some(after)) => Some(line("MODIFIED", self.shown(after))),
            (Some(before), None) => {
                // The object before its deletion, with the version of the deletion.
                let gone = Item {
                    key: before.key.clone(),
                    version: event.version,
                    origin: before.origin.clone(),
                    json: Arc::clone(&before.json),
                    status: before.status.clone(),
                    print: before.print,
                };
                Some(line("DELETED", self.shown(&gone)))
            }
        }
    }

    fn shown(&self, item: &Item) -> Value {
        self.of.single(item)
    }

    fn bookmark(&self, annotations: Option<Value>) -> Value {
        let mut metadata = json!({ "resourceVersion": self.position.to_string() });
        if let Some(annotations) = annotations {
            metadata["annotations"] = annotations;
        }
        if self.of.shape == AnswerShape::Table {
            return table::table(&self.of, &[], metadata);
        }
        json!({
            "kind": self.of.resource.info.kind.as_str(),
            "apiVersion": self.of.resource.api_version(&self.of.version),
            "metadata": metadata,
        })
    }

    /// Returns the lines of the watch until it ends. `permit` is released at the end.
    pub(super) fn lines(
        self,
        views: watch::Receiver<Arc<View>>,
        permit: OwnedSemaphorePermit,
    ) -> impl Stream<Item = Bytes> {
        let end = Instant::from_std(clock::now()) + self.lasts;
        let state = RunningWatch { watching: self, views, end, over: false, _permit: permit };
        unfold(state, |mut state| async move { state.next().await.map(|line| (line, state)) })
    }
}

struct RunningWatch {
    watching: Watching,
    views: watch::Receiver<Arc<View>>,
    end: Instant,
    over: bool,
    _permit: OwnedSemaphorePermit,
}

impl RunningWatch {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.watching.lines.pop_front() {
                return Some(line);
            }
            if self.over {
                return None;
            }
            let view = Arc::clone(&self.views.borrow_and_update());
            self.over = !self.watching.advance(&view);
            if self.over || !self.watching.lines.is_empty() {
                continue;
            }
            let bookmark = Instant::from_std(clock::now()) + BOOKMARKS;
            tokio::select! {
                changed = self.views.changed() => self.over = changed.is_err(),
                () = sleep_until(self.end) => self.over = true,
                () = sleep_until(bookmark) => {
                    if self.watching.bookmarks {
                        let mark = self.watching.bookmark(None);
                        self.watching.lines.push_back(line("BOOKMARK", mark));
                    }
                }
            }
        }
    }
}

fn line(kind: &str, object: Value) -> Bytes {
    let mut event = json!({ "type": kind });
    event["object"] = object;
    let mut text = event.to_string();
    text.push('\n');
    text.into()
}
