//! A peer that means harm, and how to tell that it did none.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::{Gateway, Origin, Reply, Seen, Setup, Wire, serve_all, soon};

/// A request that stands right behind what is sent. Whoever sees it took bytes of one request for
/// another one.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: shop.test\r\n\r\n";

/// By when the gateway has closed a connection that it refuses: after the time it gives a head, as
/// what stands behind the request may look like the start of another one.
const CLOSED: Duration = Duration::from_secs(5);

/// What went wrong in the rows of a table. A test sees all of it at its end, not the first alone.
#[derive(Debug, Default)]
pub(crate) struct Faults(Mutex<Vec<String>>);

impl Faults {
    /// Notes what `fault` says unless `holds`, which is given back.
    pub(crate) fn unless(&self, holds: bool, fault: impl FnOnce() -> String) -> bool {
        if !holds {
            self.0.lock().unwrap().push(fault());
        }
        holds
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        let faults = self.0.lock().unwrap();
        let all = format!("{} faults:\n{}", faults.len(), faults.join("\n"));
        if std::thread::panicking() {
            eprintln!("{all}");
        } else {
            assert!(faults.is_empty(), "{all}");
        }
    }
}

/// A gateway in front of a backend that records what reaches it.
#[derive(Debug)]
pub(crate) struct Target {
    // First, so that what the gateway said is printed behind what was wrong.
    pub(crate) faults: Faults,
    pub(crate) origin: Origin,
    pub(crate) gateway: Gateway,
    canaries: AtomicU32,
}

impl Target {
    pub(crate) async fn start() -> Self {
        Self::with(|setup| setup).await
    }

    pub(crate) async fn with(edit: impl FnOnce(Setup) -> Setup) -> Self {
        let origin = Origin::replying("ok").await;
        let routes = serve_all("shop", "shop.test", &[origin.address]);
        // A head that the gateway waits for in vain must not hold the test up for long.
        let setup = Gateway::setup()
            .file("routes/shop.yaml", &routes)
            .flag("--head-timeout 3s")
            .flag("--body-timeout 3s");
        Self {
            faults: Faults::default(),
            origin,
            gateway: edit(setup).start().await,
            canaries: AtomicU32::new(0),
        }
    }

    /// Sends `bytes` with [`SMUGGLED`] behind them, and reads until the gateway closes; none if it
    /// does not.
    pub(crate) async fn attack(&self, bytes: &[u8]) -> Option<Vec<Reply>> {
        let mut wire = self.gateway.wire().await;
        wire.send([bytes, SMUGGLED.as_bytes()].concat()).await;
        let rest = tokio::time::timeout(CLOSED, wire.rest()).await.ok()?;
        Some(replies(&rest).await)
    }

    /// `bytes` are refused with one of `statuses` (0 is for closing without a word), the connection
    /// ends, no whole request reaches the backend, and the next client is served. If not, that is
    /// noted; `what` tells which case it was.
    pub(crate) async fn refuses(&self, what: &str, bytes: &[u8], statuses: &[u16]) {
        let before = self.origin.requests().len();
        let replies = self.attack(bytes).await;
        if self.faults.unless(replies.is_some(), || format!("{what}: the connection goes on")) {
            let replies = replies.unwrap_or_default();
            let first = replies.first().map_or(0, Reply::status);
            self.faults.unless(statuses.contains(&first) && replies.len() < 2, || {
                format!("{what}: not one of {statuses:?} and the end, but {replies:?}")
            });
        }
        let reached = self.origin.requests().split_off(before);
        self.faults.unless(reached.is_empty(), || format!("{what}: reached it: {reached:?}"));
        self.is_unharmed(what).await;
    }

    /// `bytes`, a whole request, reach the backend, once, or are refused with 400; what the backend
    /// was sent, if it was. Anything else is noted.
    pub(crate) async fn passes_or_refuses(&self, what: &str, bytes: &[u8]) -> Option<Seen> {
        let before = self.origin.requests().len();
        let mut wire = self.gateway.wire().await;
        wire.send(bytes).await;
        let reply = soon(what, wire.try_reply_to("GET")).await;
        drop(wire);
        let mut reached = self.origin.requests().split_off(before);
        let fits = match reply.as_ref().map_or(0, Reply::status) {
            200 => reached.len() == 1,
            400 => reached.is_empty(),
            _ => false,
        };
        self.faults.unless(fits, || format!("{what}: {reply:?} and {reached:?}"));
        self.is_unharmed(what).await;
        reached.pop()
    }

    /// `bytes`, a whole request, reach the backend, once.
    ///
    /// # Panics
    ///
    /// They do not.
    pub(crate) async fn passes(&self, what: &str, bytes: &[u8]) -> Seen {
        let seen = self.passes_or_refuses(what, bytes).await;
        seen.unwrap_or_else(|| panic!("{what}: refused"))
    }

    /// The next client gets its own answer, and the backend its request alone.
    ///
    /// # Panics
    ///
    /// It does not.
    pub(crate) async fn is_unharmed(&self, what: &str) {
        let path = format!("/canary/{}", self.canaries.fetch_add(1, Ordering::Relaxed));
        let mut wire: Wire = self.gateway.wire().await;
        wire.send(format!("GET {path} HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n"))
            .await;
        let reply = wire.reply().await;
        assert_eq!((reply.status(), reply.text().as_str()), (200, "ok"), "after {what}");
        assert_eq!(self.origin.last().target(), path, "after {what}");
    }
}

/// Every whole answer in `bytes`.
pub(crate) async fn replies(bytes: &[u8]) -> Vec<Reply> {
    let mut wire = Wire::over(std::io::Cursor::new(bytes.to_vec()));
    let mut replies = Vec::new();
    while let Some(reply) = wire.try_reply_to("GET").await {
        replies.push(reply);
    }
    replies
}
