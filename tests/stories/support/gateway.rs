//! The gateway under test: the real binary, started as systemd starts it.

use std::fs;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use command_fds::{CommandFdExt, FdMapping};
use nix::sys::signal::Signal;
use serde_json::Value;
use socket2::Socket;
use tempfile::TempDir;

use super::notify::{Message, NotifySocket};
use super::yaml::{ENVOY_GATEWAY, GATEWAY, GATEWAY_CLASS};
use super::{Http2, Lineage, Process, Reply, Tls, Wire, ca, soon};

/// The names in the certificate that most stories use.
pub(crate) const NAMES: [&str; 5] =
    ["gateway.test", "shop.test", "blog.test", "ws.test", "*.example.test"];

/// How a gateway will be started: its files, flags, sockets and environment.
#[derive(Debug)]
pub(crate) struct Setup {
    dir: TempDir,
    config: PathBuf,
    flags: Vec<String>,
    env: Vec<(String, String)>,
    sockets: Vec<(String, Socket)>,
    /// `LISTEN_FDNAMES`; the names of the sockets unless given.
    socket_names: Option<Option<String>>,
    watches: bool,
    watchdog: Option<String>,
    /// `RLIMIT_NOFILE`.
    descriptors: Option<u32>,
    /// Where the log goes, if not to the harness.
    log_to: Option<PathBuf>,
    lineage: Lineage,
    control_socket: PathBuf,
    /// `--metrics-listen`.
    metrics: String,
    /// `--admin-listen`.
    admin: String,
}

impl Setup {
    /// The sockets and the certificate of most stories, and no file yet.
    fn bare() -> Self {
        let dir = TempDir::with_prefix("gateway-").unwrap();
        let letsencrypt = dir.path().join("letsencrypt");
        let lineage = Lineage::create(&letsencrypt, "gateway.test", &ca().leaf(&NAMES));
        fs::create_dir_all(dir.path().join("acme/.well-known/acme-challenge")).unwrap();
        let setup = Self {
            config: dir.path().join("root/etc/envoy-gateway/standalone.yaml"),
            control_socket: dir.path().join("control.sock"),
            dir,
            flags: Vec::new(),
            env: vec![("DOMAIN".into(), "gateway.test".into())],
            sockets: Vec::new(),
            socket_names: None,
            watches: false,
            watchdog: None,
            descriptors: None,
            log_to: None,
            lineage,
            metrics: "none".into(),
            admin: "none".into(),
        };
        setup.socket("http", "127.0.0.1:0").socket("https", "127.0.0.1:0")
    }

    /// A place below the configuration folder.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join("root/etc/envoy-gateway").join(path)
    }

    /// The `/etc/letsencrypt` of this gateway.
    pub(crate) fn letsencrypt(&self) -> PathBuf {
        self.dir.path().join("letsencrypt")
    }

    /// certbot's webroot.
    pub(crate) fn acme(&self) -> PathBuf {
        self.dir.path().join("acme")
    }

    /// Where the gateway can be asked.
    pub(crate) fn control_socket(&self) -> &Path {
        &self.control_socket
    }

    /// Has the gateway answer scrapers on `address`.
    pub(crate) fn metrics_at(mut self, address: SocketAddr) -> Self {
        self.metrics = address.to_string();
        self
    }

    /// Has the gateway answer the admin API on `address`.
    pub(crate) fn admin_at(mut self, address: SocketAddr) -> Self {
        self.admin = address.to_string();
        self
    }

    /// Has the gateway open its control socket elsewhere.
    pub(crate) fn control_socket_at(mut self, path: &str) -> Self {
        self.control_socket = path.into();
        self
    }

    /// A command that reads this configuration, as an operator types it; its flags are still to
    /// come. Nothing that asks the gateway reaches one of this host.
    pub(crate) fn command(&self, name: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_edge-gateway"));
        command.args(name.split_whitespace()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.arg("--control-socket").arg(self.control_socket());
        command
    }

    /// The flags that name the files of this configuration.
    pub(crate) fn files(&self) -> Vec<String> {
        let pairs = [
            ("--config", self.config.clone()),
            ("--config-root", self.dir.path().join("root")),
            ("--letsencrypt-dir", self.letsencrypt()),
        ];
        let flags = pairs.into_iter();
        flags.flat_map(|(flag, path)| [flag.to_owned(), path.display().to_string()]).collect()
    }

    /// The certificate of this gateway.
    pub(crate) fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    /// Writes a file of the configuration.
    pub(crate) fn file(self, path: &str, text: &str) -> Self {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    /// Copies a whole configuration; the EnvoyGateway document in it has the name `config`.
    fn tree(mut self, from: &Path, config: &str) -> Self {
        copy(from, &self.path(""));
        self.config = self.path(config);
        self
    }

    /// A flag of `run`, with its value behind a space if it has one.
    pub(crate) fn flag(mut self, flag: &str) -> Self {
        self.flags.extend(flag.split_whitespace().map(Into::into));
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Hands over one more socket, bound to `address`.
    pub(crate) fn socket(mut self, name: &str, address: &str) -> Self {
        self.sockets.push((name.into(), TcpListener::bind(address).unwrap().into()));
        self
    }

    /// Another socket to be handed over, of UDP.
    pub(crate) fn datagrams(mut self, name: &str, address: &str) -> Self {
        self.sockets.push((name.into(), UdpSocket::bind(address).unwrap().into()));
        self
    }

    /// The port of the socket `name`.
    pub(crate) fn port(&self, name: &str) -> u16 {
        let (_, socket) = self.sockets.iter().find(|(socket, _)| socket == name).unwrap();
        socket.local_addr().unwrap().as_socket().unwrap().port()
    }

    /// Hands over no socket at all, unless more are named after this.
    pub(crate) fn without_sockets(mut self) -> Self {
        self.sockets.clear();
        self
    }

    /// What `LISTEN_FDNAMES` says instead of the sockets' names; none if it is not set.
    pub(crate) fn socket_names(mut self, names: Option<&str>) -> Self {
        self.socket_names = Some(names.map(Into::into));
        self
    }

    /// Lets the gateway watch its files; else only a signal makes it read them again.
    pub(crate) fn watching(mut self) -> Self {
        self.watches = true;
        self
    }

    pub(crate) fn watchdog(mut self, micros: u64) -> Self {
        self.watchdog = Some(micros.to_string());
        self
    }

    /// Limits the number of open files.
    pub(crate) fn descriptors(mut self, count: u32) -> Self {
        self.descriptors = Some(count);
        self
    }

    /// Sends the log to a file or device instead of the harness.
    pub(crate) fn log_to(mut self, path: &Path) -> Self {
        self.log_to = Some(path.into());
        self
    }

    /// Starts the gateway and waits until it serves.
    pub(crate) async fn start(self) -> Gateway {
        let gateway = self.launch();
        gateway.ready(0).await;
        gateway
    }

    /// Starts the gateway and leaves it to the story to see what becomes of it.
    pub(crate) fn launch(self) -> Gateway {
        let notify = NotifySocket::bind(&self.dir.path().join("notify"));
        let process = self.spawn(&notify);
        Gateway { setup: self, notify, process }
    }

    fn spawn(&self, notify: &NotifySocket) -> Process {
        let mut command = Command::new("sh");
        // systemd sets these in the child itself; `exec` keeps the number that the shell has.
        let mut script = String::from("LISTEN_PID=$$; export LISTEN_PID; ");
        if self.sockets.is_empty() {
            script.clear();
        }
        if self.watchdog.is_some() {
            script.push_str("WATCHDOG_PID=$$; export WATCHDOG_PID; ");
        }
        if let Some(count) = self.descriptors {
            script.push_str(&format!("ulimit -n {count}; "));
        }
        if let Some(path) = &self.log_to {
            script.push_str(&format!("exec >'{}'; ", path.display()));
        }
        command.arg("-c").arg(script + "exec \"$0\" \"$@\"");
        command.arg(env!("CARGO_BIN_EXE_edge-gateway")).arg("run");
        command.arg("--config").arg(&self.config);
        command.arg("--config-root").arg(self.dir.path().join("root"));
        command.arg("--letsencrypt-dir").arg(self.letsencrypt());
        command.arg("--acme-webroot").arg(self.acme());
        command.arg("--control-socket").arg(self.control_socket());
        command.args(["--log-format", "json", "--metrics-listen", &self.metrics]);
        command.args(["--admin-listen", &self.admin]);
        if !self.watches {
            command.arg("--no-watch");
        }
        command.args(&self.flags);

        command.env_clear().env("RUST_BACKTRACE", "1");
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("NOTIFY_SOCKET", notify.path());
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Some(micros) = &self.watchdog {
            command.env("WATCHDOG_USEC", micros);
        }
        if !self.sockets.is_empty() {
            command.env("LISTEN_FDS", self.sockets.len().to_string());
            let names: Vec<_> = self.sockets.iter().map(|(name, _)| name.as_str()).collect();
            let names = self.socket_names.clone().unwrap_or_else(|| Some(names.join(":")));
            if let Some(names) = names {
                command.env("LISTEN_FDNAMES", names);
            }
            let mappings = self.sockets.iter().zip(3..).map(|((_, socket), child_fd)| FdMapping {
                parent_fd: OwnedFd::from(socket.try_clone().unwrap()),
                child_fd,
            });
            command.fd_mappings(mappings.collect()).unwrap();
        }
        Process::spawn(command)
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// A gateway that runs.
#[derive(Debug)]
pub(crate) struct Gateway {
    setup: Setup,
    notify: NotifySocket,
    process: Process,
}

impl Gateway {
    /// The usual setup: a Gateway `eg` with the sockets `http` and `https`, a certificate for
    /// [`NAMES`], no route, no watching of files.
    pub(crate) fn setup() -> Setup {
        let setup = Setup::bare()
            .file("standalone.yaml", ENVOY_GATEWAY)
            .file("common/gatewayclass.yaml", GATEWAY_CLASS)
            .file("common/gateway.yaml", GATEWAY);
        fs::create_dir_all(setup.path("routes")).unwrap();
        setup
    }

    /// A configuration of another's, as it is: the folder `from`, and which of the EnvoyGateway
    /// documents in it is meant. The usual sockets and certificate.
    pub(crate) fn with_configuration(from: &Path, config: &str) -> Setup {
        Setup::bare().tree(from, config)
    }

    pub(crate) async fn start() -> Self {
        Self::setup().start().await
    }

    /// A gateway that sends everything for shop.test to `backend`.
    pub(crate) async fn in_front_of(backend: SocketAddr) -> Self {
        let route = super::serve_all("shop", "shop.test", &[backend]);
        Self::setup().file("routes/shop.yaml", &route).start().await
    }

    /// The address of the socket `name`, as it was handed over.
    pub(crate) fn address(&self, name: &str) -> SocketAddr {
        let named = self.setup.sockets.iter().find(|(socket, _)| socket == name);
        let (_, socket) = named.unwrap_or_else(|| panic!("a socket `{name}`"));
        socket.local_addr().unwrap().as_socket().unwrap()
    }

    pub(crate) fn http(&self) -> SocketAddr {
        self.address("http")
    }

    pub(crate) fn https(&self) -> SocketAddr {
        self.address("https")
    }

    pub(crate) fn setup_ref(&self) -> &Setup {
        &self.setup
    }

    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    pub(crate) fn notify(&self) -> &NotifySocket {
        &self.notify
    }

    pub(crate) fn lineage(&self) -> &Lineage {
        &self.setup.lineage
    }

    // --- files

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.setup.path(path)
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        fs::write(self.path(path), text).unwrap();
    }

    pub(crate) fn remove(&self, path: &str) {
        fs::remove_file(self.path(path)).unwrap();
    }

    /// Lays a file into certbot's webroot.
    pub(crate) fn write_challenge(&self, token: &str, text: &str) -> PathBuf {
        let path = self.webroot().join(token);
        fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn webroot(&self) -> PathBuf {
        self.setup.dir.path().join("acme/.well-known/acme-challenge")
    }

    // --- life

    /// Waits for READY=1 among the messages from number `since` on.
    async fn ready(&self, since: usize) -> Message {
        let ready = self.notify.message("READY=1", since, |message| message.is("READY"));
        tokio::select! {
            biased;
            (_, message) = ready => message,
            status = self.process.exit() => panic!("the gateway ended with {status} before it was ready"),
        }
    }

    /// Sends SIGHUP and waits until the load is over, well or not; the message that said so.
    pub(crate) async fn reload(&self) -> Message {
        let since = self.notify.messages().len();
        self.process.signal(Signal::SIGHUP);
        let reloading = |message: &Message| message.is("RELOADING");
        let (at, _) = self.notify.message("RELOADING=1", since, reloading).await;
        self.ready(at + 1).await
    }

    /// Reloads files from which something was taken out on purpose.
    ///
    /// # Panics
    ///
    /// The reload is refused.
    pub(crate) async fn reload_with_removals(&self) {
        let mut command = self.setup.command("reload --wait --allow-removal");
        let ran = tokio::task::spawn_blocking(move || command.output().unwrap());
        let ran = soon("the reload ends", ran).await.unwrap();
        assert!(ran.status.success(), "{ran:?}");
    }

    /// Sends SIGTERM and leaves it at that.
    pub(crate) fn terminate(&self) {
        self.process.signal(Signal::SIGTERM);
    }

    /// How the gateway ended, once it has.
    pub(crate) async fn exit(&self) -> ExitStatus {
        self.process.exit().await
    }

    /// Starts a second process on the same sockets, as systemd does in a restart, and gives back
    /// the first.
    pub(crate) fn replace(&mut self) -> Process {
        let next = self.setup.spawn(&self.notify);
        std::mem::replace(&mut self.process, next)
    }

    /// Waits for the READY=1 of a process that was started by [`replace`](Self::replace) when there
    /// were `since` messages.
    pub(crate) async fn replaced(&self, since: usize) {
        self.ready(since).await;
    }

    // --- what it says

    /// The first access log entry that `fits`, once it is there.
    pub(crate) async fn logged(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let is_it = |line: &str| serde_json::from_str(line).is_ok_and(|entry| fits(&entry));
        let line = self.process.stdout_line(what, is_it).await;
        serde_json::from_str(&line).unwrap()
    }

    // --- clients

    /// A connection to the socket `http`.
    pub(crate) async fn wire(&self) -> Wire {
        Wire::connect(self.http()).await
    }

    /// An HTTP/1.1 connection to the socket `https` for `name`.
    pub(crate) async fn tls_wire(&self, name: &str) -> Wire {
        Wire::tls(self.https(), name).await
    }

    /// An HTTP/2 connection to the socket `https` for `name`.
    pub(crate) async fn http2(&self, name: &str) -> Http2 {
        let stream = Tls::of(name).alpn(&["h2"]).connect(self.https()).await.unwrap();
        Http2::over(stream).await
    }

    /// GET over HTTP/1.1, on a connection of its own: `http://shop.test/path`.
    pub(crate) async fn get(&self, url: &str) -> Reply {
        self.get_with(url, "").await
    }

    /// As [`get`](Self::get), with more header lines, each with its CRLF.
    pub(crate) async fn get_with(&self, url: &str, lines: &str) -> Reply {
        let (scheme, rest) = url.split_once("://").unwrap();
        let (host, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let name = host.split(':').next().unwrap();
        let mut wire = match scheme {
            "http" => self.wire().await,
            "https" => self.tls_wire(name).await,
            other => panic!("`{other}` is not a scheme of HTTP"),
        };
        let lines = format!("{lines}Connection: close\r\n\r\n");
        wire.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{lines}")).await;
        wire.reply().await
    }

    /// Sends `bytes` to the socket `http` and reads until the gateway closes.
    pub(crate) async fn raw(&self, bytes: impl AsRef<[u8]>) -> Vec<u8> {
        let mut wire = self.wire().await;
        wire.send(bytes).await;
        wire.rest().await
    }

    /// The serial number of the certificate that is shown for `name`.
    pub(crate) async fn serial(&self, name: &str) -> u64 {
        soon("a handshake", Tls::of(name).serial(self.https())).await.unwrap()
    }
}
