//! A peer that means harm, and how to tell that it did none.

use std::sync::atomic::{AtomicU32, Ordering};

use super::{Gateway, Origin, Reply, Seen, Setup, Wire, serve_all};

/// A request that stands right behind what is sent. Whoever sees it took bytes of one request for
/// another one.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: shop.test\r\n\r\n";

/// A gateway in front of a backend that records what reaches it.
#[derive(Debug)]
pub(crate) struct Target {
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
        Self { origin, gateway: edit(setup).start().await, canaries: AtomicU32::new(0) }
    }

    /// Sends `bytes` with [`SMUGGLED`] behind them, and reads until the gateway closes.
    pub(crate) async fn attack(&self, bytes: &[u8]) -> Vec<Reply> {
        let mut wire = self.gateway.wire().await;
        wire.send([bytes, SMUGGLED.as_bytes()].concat()).await;
        replies(&wire.rest().await).await
    }

    /// `bytes` are refused with one of `statuses` (0 is for closing without a word), the connection
    /// ends, no whole request reaches the backend, and the next client is served.
    ///
    /// # Panics
    ///
    /// One of that does not hold; `what` tells which case it was.
    pub(crate) async fn refuses(&self, what: &str, bytes: &[u8], statuses: &[u16]) {
        println!("{what}");
        let before = self.origin.requests().len();
        let replies = self.attack(bytes).await;
        let first = replies.first().map_or(0, Reply::status);
        assert!(statuses.contains(&first), "{what}: {first} is none of {statuses:?}: {replies:?}");
        assert!(replies.len() < 2, "{what}: one answer, then the end: {replies:?}");
        let reached = self.origin.requests().split_off(before);
        assert!(reached.is_empty(), "{what}: the backend was sent {reached:?}");
        self.is_unharmed(what).await;
    }

    /// `bytes`, a whole request, reach the backend, once, or are refused with 400; what the backend
    /// was sent, if it was.
    ///
    /// # Panics
    ///
    /// Something else happens.
    pub(crate) async fn passes_or_refuses(&self, what: &str, bytes: &[u8]) -> Option<Seen> {
        let before = self.origin.requests().len();
        let mut wire = self.gateway.wire().await;
        wire.send(bytes).await;
        let reply = wire.reply().await;
        drop(wire);
        let mut reached = self.origin.requests().split_off(before);
        match reply.status() {
            200 => assert_eq!(reached.len(), 1, "{what}: {reached:?}"),
            400 => assert!(reached.is_empty(), "{what}: {reached:?}"),
            _ => panic!("{what}: {reply:?}"),
        }
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
        let targets = self.origin.targets();
        assert!(!targets.iter().any(|target| target == "/smuggled"), "{what}: {targets:?}");
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
