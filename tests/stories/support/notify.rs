//! The service manager's end of `NOTIFY_SOCKET`.

use std::path::{Path, PathBuf};

use tokio::net::UnixDatagram;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::soon;

/// Receives what the gateway tells the service manager, and keeps all of it in order.
#[derive(Debug)]
pub(crate) struct NotifySocket {
    path: PathBuf,
    messages: watch::Receiver<Vec<Message>>,
    _reader: JoinSet<()>,
}

/// One datagram: assignments that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message(pub Vec<(String, String)>);

impl Message {
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn is(&self, name: &str) -> bool {
        self.value(name) == Some("1")
    }
}

impl NotifySocket {
    pub(crate) fn bind(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        let (sender, messages) = watch::channel(Vec::new());
        let mut reader = JoinSet::new();
        reader.spawn(async move {
            let mut buffer = vec![0; 16 << 10];
            while let Ok(length) = socket.recv(&mut buffer).await {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                let pairs = text.lines().filter_map(|line| line.split_once('='));
                let pairs = pairs.map(|(name, value)| (name.into(), value.into())).collect();
                sender.send_modify(|messages| messages.push(Message(pairs)));
            }
        });
        Self { path: path.into(), messages, _reader: reader }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn messages(&self) -> Vec<Message> {
        self.messages.borrow().clone()
    }

    /// The first message that `fits` among those from number `since` on, once it is there.
    pub(crate) async fn message(
        &self,
        what: &str,
        since: usize,
        fits: impl Fn(&Message) -> bool,
    ) -> (usize, Message) {
        let mut messages = self.messages.clone();
        let found = |messages: &Vec<Message>| {
            let later = messages.iter().enumerate().skip(since);
            later.filter(|(_, message)| fits(message)).map(|(at, m)| (at, m.clone())).next()
        };
        let seen = soon(what, messages.wait_for(|messages| found(messages).is_some())).await;
        found(&seen.unwrap()).unwrap()
    }
}
