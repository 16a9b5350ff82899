//! Backends: one that answers by itself and records what it was sent, and one that the story plays
//! by hand.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Head, Wire, soon};

/// One request as it reached a backend.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Number of the connection it came on, from 0.
    pub connection: usize,
    /// Byte for byte; what there was of it, if the request is not complete.
    pub head: Head,
    /// Without the framing.
    pub body: Vec<u8>,
    pub trailers: Vec<u8>,
    /// False if the connection ended first.
    pub complete: bool,
}

impl Seen {
    pub(crate) fn method(&self) -> String {
        self.head.line().split(' ').next().unwrap_or_default().to_owned()
    }

    pub(crate) fn target(&self) -> String {
        self.head.target()
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        self.head.one(name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Wire {
    /// The next request with its body; an incomplete one if the connection ends in it, none if it
    /// ends before it. Whoever waits for `100 Continue` gets it.
    pub(crate) async fn request(&mut self) -> Option<Seen> {
        let Some(head) = self.head().await else {
            let head = Head(self.ahead().to_vec());
            let nothing = head.0.is_empty();
            let (body, trailers) = (Vec::new(), Vec::new());
            let cut = Seen { connection: 0, head, body, trailers, complete: false };
            return (!nothing).then_some(cut);
        };
        if head.has("expect") {
            self.send("HTTP/1.1 100 Continue\r\n\r\n").await;
        }
        let (body, trailers, complete) = self.body_of(&head).await;
        Some(Seen { connection: 0, head, body, trailers, complete })
    }
}

/// What a backend does about a request.
#[derive(Clone, Debug)]
pub(crate) struct Answer(pub Vec<Step>);

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Send(Vec<u8>),
    Wait(Duration),
    /// Ends the connection in order.
    Close,
    /// Ends the connection with a reset.
    Reset,
    /// Says nothing until the gateway gives up.
    Hang,
}

impl Answer {
    pub(crate) fn ok(text: &str) -> Self {
        Self::status(200, text)
    }

    pub(crate) fn status(status: u16, text: &str) -> Self {
        let length = text.len();
        Self::raw(format!("HTTP/1.1 {status} Said\r\nContent-Length: {length}\r\n\r\n{text}"))
    }

    /// These bytes; the connection stays open for the next request.
    pub(crate) fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self(vec![Step::Send(bytes.into())])
    }

    pub(crate) fn hang() -> Self {
        Self(vec![Step::Hang])
    }

    pub(crate) fn reset() -> Self {
        Self(vec![Step::Reset])
    }

    pub(crate) fn close() -> Self {
        Self(vec![Step::Close])
    }

    /// The same after a while.
    pub(crate) fn after(mut self, wait: Duration) -> Self {
        self.0.insert(0, Step::Wait(wait));
        self
    }

    pub(crate) fn then(mut self, step: Step) -> Self {
        self.0.push(step);
        self
    }
}

/// A backend of HTTP/1.1 that records every request and answers by a script.
#[derive(Debug)]
pub(crate) struct Origin {
    pub address: SocketAddr,
    record: watch::Receiver<Record>,
    _server: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Record {
    seen: Vec<Seen>,
    /// Connections there ever were.
    connections: usize,
    /// Connections there are.
    open: usize,
    /// All bytes there ever were, of all connections.
    bytes: usize,
}

impl Origin {
    /// Answers 200 with `text`.
    pub(crate) async fn replying(text: &str) -> Self {
        let text = text.to_owned();
        Self::scripted(move |seen| match seen.method().as_str() {
            "HEAD" => {
                let length = text.len();
                Answer::raw(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"))
            }
            _ => Answer::ok(&text),
        })
        .await
    }

    /// Answers each request as `script` says.
    pub(crate) async fn scripted(script: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0)), script).await
    }

    pub(crate) async fn at(
        address: SocketAddr,
        script: impl Fn(&Seen) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, record) = watch::channel(Record::default());
        let (sender, script) = (Arc::new(sender), Arc::new(script));
        let mut server = JoinSet::new();
        server.spawn(async move {
            let mut connections = JoinSet::new();
            for number in 0.. {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (sender, script) = (Arc::clone(&sender), Arc::clone(&script));
                connections.spawn(async move {
                    sender.send_modify(|record| {
                        record.connections += 1;
                        record.open += 1;
                    });
                    let bytes = serve(Wire::tcp(stream), number, &*script, &sender).await;
                    sender.send_modify(|record| {
                        record.open -= 1;
                        record.bytes += bytes;
                    });
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, record, _server: server }
    }

    /// Every request so far, whole or not, in the order of their ends.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.record.borrow().seen.clone()
    }

    /// The whole requests so far.
    pub(crate) fn requests(&self) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.complete).collect()
    }

    /// The targets of the whole requests so far.
    pub(crate) fn targets(&self) -> Vec<String> {
        self.requests().iter().map(Seen::target).collect()
    }

    /// The last whole request.
    pub(crate) fn last(&self) -> Seen {
        self.requests().pop().expect("a request reached the backend")
    }

    /// Connections there ever were.
    pub(crate) fn connections(&self) -> usize {
        self.record.borrow().connections
    }

    /// Connections there are.
    pub(crate) fn open(&self) -> usize {
        self.record.borrow().open
    }

    /// Waits for request number `count`, whole or not.
    pub(crate) async fn saw(&self, count: usize) {
        let mut record = self.record.clone();
        let wait = record.wait_for(|record| record.seen.len() >= count);
        soon("the backend sees a request", wait).await.unwrap();
    }

    /// Waits until no connection is open.
    pub(crate) async fn is_left_alone(&self) {
        let mut record = self.record.clone();
        let wait = record.wait_for(|record| record.open == 0);
        soon("the gateway leaves the backend", wait).await.unwrap();
    }
}

/// Serves one connection to its end; the bytes that came on it.
async fn serve(
    mut wire: Wire,
    number: usize,
    script: &(dyn Fn(&Seen) -> Answer + Send + Sync),
    record: &watch::Sender<Record>,
) -> usize {
    while let Some(mut seen) = wire.request().await {
        seen.connection = number;
        let complete = seen.complete;
        record.send_modify(|record| record.seen.push(seen.clone()));
        if !complete {
            break;
        }
        for step in script(&seen).0 {
            match step {
                Step::Send(bytes) => {
                    let _ = wire.push(&bytes).await;
                }
                // A script that says how long something takes.
                Step::Wait(wait) => tokio::time::sleep(wait).await,
                Step::Close => {
                    wire.finish().await;
                    // What still comes is not answered, but it was sent, and that counts.
                    while let Some(mut seen) = wire.request().await {
                        seen.connection = number;
                        record.send_modify(|record| record.seen.push(seen.clone()));
                        if !seen.complete {
                            break;
                        }
                    }
                    return wire.received.len();
                }
                Step::Reset => {
                    let bytes = wire.received.len();
                    wire.reset();
                    return bytes;
                }
                Step::Hang => {
                    while wire.more().await {}
                    return wire.received.len();
                }
            }
        }
    }
    wire.received.len()
}

/// A backend that the story plays by hand.
#[derive(Debug)]
pub(crate) struct Backend {
    pub address: SocketAddr,
    listener: TcpListener,
}

impl Backend {
    pub(crate) async fn bind() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { address: listener.local_addr().unwrap(), listener }
    }

    /// The gateway's next connection.
    pub(crate) async fn accept(&self) -> Wire {
        let accepted = soon("the gateway connects to the backend", self.listener.accept()).await;
        Wire::tcp(accepted.unwrap().0)
    }

    /// The gateway's next connection, if it comes within `wait`.
    pub(crate) async fn accept_within(&self, wait: Duration) -> Option<Wire> {
        let accepted = tokio::time::timeout(wait, self.listener.accept()).await.ok()?;
        Some(Wire::tcp(accepted.unwrap().0))
    }
}
