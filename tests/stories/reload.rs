//! Changes while it runs: a reload changes everything or nothing, and no client notices.

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::Request;
use nix::sys::signal::Signal;
use tokio::task::JoinSet;

use crate::support::{
    Backend, Fetched, Gateway, Http2, Lineage, Origin, Tls, Wire, ca, empty, http_route, rule_to,
    serve_all, soon, until,
};

#[tokio::test]
async fn a_new_route_serves_after_a_reload_and_not_before() {
    let shop = Origin::replying("shop").await;
    let gateway = Gateway::start().await;

    gateway.write("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]));
    assert_eq!(gateway.get("http://shop.test/").await.status(), 404);
    gateway.reload().await;
    assert_eq!(gateway.get("http://shop.test/").await.text(), "shop");
    gateway.remove("routes/shop.yaml");
    gateway.reload_with_removals().await;
    assert_eq!(gateway.get("http://shop.test/").await.status(), 404);
}

#[tokio::test]
async fn a_route_is_live_when_its_file_is_saved() {
    let (shop, blog) = (Origin::replying("shop").await, Origin::replying("blog").await);
    // The last route of a listener does not go with its file.
    let other = serve_all("other", "one.example.test", &[blog.address]);
    let gateway = Gateway::setup().watching().file("routes/other.yaml", &other).start().await;
    let live = async |host: &str, body: Option<&str>| {
        soon("the change is live", async {
            loop {
                let reply = gateway.get(&format!("http://{host}/")).await;
                match body {
                    Some(body) if reply.text() == body => return,
                    None if reply.status() == 404 => return,
                    // The gateway waits for the files to be quiet before it reads them.
                    _ => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        })
        .await;
    };

    gateway.write("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]));
    live("shop.test", Some("shop")).await;
    // As editors save: beside it, then in its place.
    let beside = gateway.path("routes/.shop.yaml.swp");
    fs::write(&beside, serve_all("shop", "shop.test", &[blog.address])).unwrap();
    fs::rename(&beside, gateway.path("routes/shop.yaml")).unwrap();
    live("shop.test", Some("blog")).await;
    gateway.remove("routes/shop.yaml");
    live("shop.test", None).await;
}

/// `mv etc old; mv new etc`: the files of the new folder are read, and so is what is saved there later.
#[tokio::test]
async fn a_folder_above_the_configuration_may_be_replaced() {
    let (shop, blog) = (Origin::replying("shop").await, Origin::replying("blog").await);
    let route = |name: &str, at| serve_all(name, &format!("{name}.test"), &[at]);
    let setup = Gateway::setup().file("routes/shop.yaml", &route("shop", shop.address));
    let gateway = setup.watching().start().await;
    let live = async |host: &str, want: &str| {
        soon("the change is live", async {
            while gateway.get(&format!("http://{host}/")).await.text() != want {
                // The gateway waits for the files to be quiet before it reads them.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    };
    let etc = gateway.path("").ancestors().nth(1).unwrap().to_owned();
    let (old, new) = (etc.with_file_name("old"), etc.with_file_name("new"));
    let copied = Command::new("cp").arg("-a").args([&etc, &new]).status().unwrap();
    assert!(copied.success());
    fs::write(new.join("envoy-gateway/routes/blog.yaml"), route("blog", blog.address)).unwrap();
    fs::rename(&etc, &old).unwrap();
    fs::rename(&new, &etc).unwrap();
    live("blog.test", "blog").await;
    gateway.write("routes/shop.yaml", &route("shop", blog.address));
    live("shop.test", "blog").await;
}

#[tokio::test]
async fn a_broken_file_is_refused_with_its_place_and_the_old_routes_serve() {
    let shop = Origin::replying("shop").await;
    let gateway = Gateway::in_front_of(shop.address).await;
    let good = serve_all("blog", "blog.test", &[shop.address]);

    // (what is wrong, content, line of it)
    let table = [
        ("not YAML", good.replace("kind: Backend", "kind: [Backend"), None),
        ("half written", good[..good.len() / 2].trim_end().to_owned() + ": {", None),
        ("a tab", good.replace("  name: blog", "\tname: blog"), None),
        ("a port that is none", good.replace("port: ", "port: 9"), Some(11)),
        ("an unset variable", good.replace("blog.test", "${NOT_SET_ANYWHERE}"), Some(22)),
        ("an alias bomb", alias_bomb(), None),
        ("10 MiB of nothing", "a: &a [*a]\n".to_owned() + &"# x\n".repeat(2_621_440), None),
    ];
    for (what, content, line) in table {
        let before = gateway.process().stderr().len();
        gateway.write("routes/broken.yaml", &content);
        let message = gateway.reload().await;
        assert_eq!(gateway.get("http://shop.test/").await.text(), "shop", "{what}");
        assert_eq!(gateway.get("http://blog.test/").await.status(), 404, "{what}: all or nothing");
        let place = match line {
            Some(line) => format!("broken.yaml:{line}:"),
            None => "broken.yaml:".to_owned(),
        };
        let told = |stderr: &str| stderr.get(before..).unwrap_or_default().contains(&place);
        until(what, || told(&gateway.process().stderr())).await;
        let status = message.value("STATUS").unwrap_or_default();
        assert!(status.contains("broken.yaml"), "{what}: `{status}`");
    }

    gateway.write("routes/broken.yaml", &good);
    gateway.reload().await;
    assert_eq!(gateway.get("http://blog.test/").await.text(), "shop", "repaired");
}

/// A file of a few hundred bytes that stands for a billion strings.
fn alias_bomb() -> String {
    let mut text = String::from("a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
    for level in 1..10 {
        let below =
            [format!("*a{}", level - 1)].iter().cycle().take(10).cloned().collect::<Vec<_>>();
        text.push_str(&format!("a{level}: &a{level} [{}]\n", below.join(", ")));
    }
    text
}

/// An API server would not have taken the change, so nothing is lost by it here either.
#[tokio::test]
async fn a_gateway_that_is_served_is_not_lost_by_a_mistake_in_it() {
    let shop = Origin::replying("shop").await;
    let gateway = Gateway::in_front_of(shop.address).await;
    let good = fs::read_to_string(gateway.path("common/gateway.yaml")).unwrap();
    gateway.write("common/gateway.yaml", &good.replace("port: 8080", "port: 0"));
    let ready = gateway.reload().await;
    let status = ready.value("STATUS").unwrap_or_default();
    assert!(status.contains("last reload failed"), "{status}");
    assert!(status.contains("gateway.yaml:11:13"), "{status}");
    assert_eq!(gateway.get("http://shop.test/").await.text(), "shop");
    assert_eq!(gateway.get("https://shop.test/").await.text(), "shop");

    gateway.write("common/gateway.yaml", &good);
    gateway.write("routes/news.yaml", &serve_all("news", "one.example.test", &[shop.address]));
    gateway.reload().await;
    assert_eq!(gateway.get("http://one.example.test/").await.text(), "shop");
}

/// Where the policy is so, a fault of meaning is one object's; the others are served.
#[tokio::test]
async fn one_objects_fault_leaves_the_others_alone() {
    let (shop, blog) = (Origin::replying("shop").await, Origin::replying("blog").await);
    let gateway = Gateway::setup()
        .flag("--reload-policy partial")
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
        .start()
        .await;
    let wrong =
        serve_all("blog", "blog.test", &[blog.address]).replace("value: /\n", "value: no-slash\n");
    gateway.write("routes/blog.yaml", &wrong);
    gateway.write("routes/news.yaml", &serve_all("news", "one.example.test", &[blog.address]));
    gateway.reload().await;
    assert_eq!(gateway.get("http://shop.test/").await.text(), "shop");
    assert_eq!(gateway.get("http://one.example.test/").await.text(), "blog");
    assert_ne!(gateway.get("http://blog.test/").await.status(), 200);
    let stderr = gateway.process().stderr();
    assert!(
        stderr.contains("blog.yaml:27:20: HTTPRoute") && stderr.contains("path.value"),
        "{stderr}"
    );
}

/// The journal of a gateway that is reloaded every hour is not to be full of what somebody has
/// decided to live with.
#[tokio::test]
async fn a_reload_tells_what_is_new_and_what_is_gone() {
    let lost =
        |name: &str| http_route(name, &[&format!("{name}.example.test")], &rule_to("/", "nowhere"));
    let gateway = Gateway::setup()
        .flag("--reload-policy partial")
        .file("routes/old.yaml", &lost("old"))
        .start()
        .await;
    // The line that ends a load, and what it told before that.
    let told = async |loads: usize, last: &str| {
        let log = || gateway.process().stderr();
        until(last, || log().matches(last).count() == loads).await;
        let log = log();
        let lines: Vec<_> = log.lines().filter(|line| line.contains(".yaml")).collect();
        lines.join("\n")
    };
    let at_start = told(1, "from 3 objects").await;
    assert_eq!(at_start.matches("old.yaml").count(), 1, "{at_start}");

    // Above what is wrong, so that its line is another now.
    gateway.write("routes/old.yaml", &format!("# a comment\n{}", lost("old")));
    gateway.write("routes/new.yaml", &lost("new"));
    gateway.reload().await;
    let log = told(1, "from 4 objects").await;
    assert_eq!(log.matches("old.yaml").count(), 1, "{log}");
    assert_eq!(log.matches("new.yaml").count(), 1, "{log}");
    let check = "still there: 1 fault; `edge-gateway check --config ";
    assert_eq!(log.matches(check).count(), 1, "{log}");

    gateway.remove("routes/old.yaml");
    gateway.reload().await;
    let log = told(2, "from 3 objects").await;
    assert_eq!(log.matches("old.yaml").count(), 2, "{log}");
    assert!(log.contains("fixed: ") && log.contains("routes/old.yaml:"), "{log}");
    assert_eq!(log.matches("new.yaml").count(), 1, "{log}");
    assert_eq!(log.matches(check).count(), 2, "{log}");

    // A load that fails says why each time, and mends nothing that it has not looked at.
    for times in [1, 2] {
        gateway.write("routes/broken.yaml", "kind: [");
        gateway.reload().await;
        let log = told(times, "reload failed").await;
        assert_eq!(log.matches("broken.yaml").count(), times, "{log}");
        assert_eq!(log.matches("new.yaml").count(), 1, "{log}");
    }
    gateway.remove("routes/broken.yaml");
    gateway.reload().await;
    let log = told(3, "from 3 objects").await;
    assert_eq!(log.matches("fixed: ").count(), 2, "{log}");
    assert_eq!(log.matches("new.yaml").count(), 1, "{log}");
}

/// What is asked for again and again while things change. It ends with the count of what failed.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    clients: JoinSet<Vec<String>>,
}

impl Load {
    /// Keep-alive over HTTP/1.1, streams of HTTP/2, and a new TLS connection for each request.
    pub(crate) fn start(gateway: &Gateway) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let done = Arc::new(AtomicUsize::new(0));
        let mut clients = JoinSet::new();
        let address = gateway.https();
        let (until, count) = (Arc::clone(&stop), Arc::clone(&done));
        clients.spawn(async move {
            let mut failed = Vec::new();
            let mut wire = Wire::tls(address, "shop.test").await;
            while !until.load(Ordering::Relaxed) {
                wire.send("GET /keep-alive HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
                match wire.try_reply_to("GET").await {
                    Some(reply) if reply.text() == "shop" => {
                        // The gateway may say that this was the last one; then it is no failure.
                        if reply.header("connection").as_deref() == Some("close") {
                            wire = Wire::tls(address, "shop.test").await;
                        }
                    }
                    other => {
                        failed.push(format!("keep-alive: {other:?}"));
                        wire = Wire::tls(address, "shop.test").await;
                    }
                }
                count.fetch_add(1, Ordering::Relaxed);
            }
            failed
        });
        let (until, count) = (Arc::clone(&stop), Arc::clone(&done));
        clients.spawn(async move {
            let mut failed = Vec::new();
            let connect = async || {
                let stream = Tls::of("shop.test").alpn(&["h2"]).connect(address).await.unwrap();
                Http2::over(stream).await
            };
            let mut http2 = connect().await;
            while !until.load(Ordering::Relaxed) {
                let request = Request::get("https://shop.test/http2").body(empty()).unwrap();
                match http2.fetch(request).await {
                    Ok(Fetched { status: 200, .. }) => {}
                    other => {
                        failed.push(format!("HTTP/2: {other:?}"));
                        http2 = connect().await;
                    }
                }
                count.fetch_add(1, Ordering::Relaxed);
            }
            failed
        });
        let (until, count) = (Arc::clone(&stop), Arc::clone(&done));
        clients.spawn(async move {
            let mut failed = Vec::new();
            while !until.load(Ordering::Relaxed) {
                let mut stream = match Tls::of("shop.test").connect(address).await {
                    Ok(stream) => Wire::over(stream),
                    Err(error) => {
                        failed.push(format!("handshake: {error}"));
                        continue;
                    }
                };
                let lines = "Host: shop.test\r\nConnection: close\r\n\r\n";
                stream.send(format!("GET /new HTTP/1.1\r\n{lines}")).await;
                let reply = stream.try_reply_to("GET").await;
                if reply.as_ref().is_none_or(|reply| reply.text() != "shop") {
                    failed.push(format!("new connection: {reply:?}"));
                }
                count.fetch_add(1, Ordering::Relaxed);
            }
            failed
        });
        Self { stop, done, clients }
    }

    fn done(&self) -> usize {
        self.done.load(Ordering::Relaxed)
    }

    /// Waits for some more requests, so that what follows happens under load.
    pub(crate) async fn goes_on(&self) {
        let before = self.done();
        until("requests go on", || self.done() >= before + 10).await;
    }

    /// Ends it.
    ///
    /// # Panics
    ///
    /// A request failed.
    pub(crate) async fn ends_unharmed(mut self) {
        self.goes_on().await;
        self.stop.store(true, Ordering::Relaxed);
        while let Some(failed) = soon("clients end", self.clients.join_next()).await {
            let failed = failed.unwrap();
            assert!(failed.is_empty(), "of {}: {failed:#?}", self.done());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_renewed_under_load_and_no_request_fails() {
    let shop = Origin::replying("shop").await;
    let gateway = Gateway::in_front_of(shop.address).await;
    let load = Load::start(&gateway);
    load.goes_on().await;

    let mut last = gateway.serial("shop.test").await;
    for _ in 0..20 {
        let leaf = ca().leaf(&["gateway.test", "shop.test"]);
        gateway.lineage().renew(&leaf);
        gateway.reload().await;
        let serial = gateway.serial("shop.test").await;
        assert_eq!(serial, leaf.serial, "the new one after the reload, not {last}");
        last = serial;
    }
    load.ends_unharmed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_are_not_noticed() {
    let shop = Origin::replying("shop").await;
    let gateway = Gateway::in_front_of(shop.address).await;
    let load = Load::start(&gateway);
    load.goes_on().await;
    let before = gateway.process().resident_kib();

    for number in 0..50 {
        let name = format!("blog-{number}");
        gateway.write("routes/blog.yaml", &serve_all(&name, "blog.test", &[shop.address]));
        gateway.reload().await;
        // And without waiting: what comes in one go is taken together.
        gateway.process().signal(Signal::SIGHUP);
    }
    gateway.reload().await;
    assert_eq!(gateway.get("http://blog.test/").await.text(), "shop");
    let after = gateway.process().resident_kib();
    assert!(after < before + 32 * 1024, "{before} KiB before, {after} KiB after");
    load.ends_unharmed().await;
}

/// A broken route must never keep an old certificate in service.
#[tokio::test]
async fn a_certificate_is_renewed_though_the_routes_are_broken() {
    let shop = Origin::replying("shop").await;
    let gateway = Gateway::in_front_of(shop.address).await;
    gateway.write("routes/shop.yaml", "kind: [");
    let leaf = ca().leaf(&["gateway.test", "shop.test"]);
    gateway.lineage().renew(&leaf);
    gateway.reload().await;
    assert_eq!(gateway.serial("shop.test").await, leaf.serial);
    assert_eq!(gateway.get("https://shop.test/").await.text(), "shop");
}

/// certbot swaps its links one by one; in between, a new key stands beside an old chain.
#[tokio::test]
async fn a_pair_that_does_not_fit_is_never_served() {
    let gateway = Gateway::start().await;
    let old = gateway.serial("shop.test").await;
    let leaf = ca().leaf(&["gateway.test", "shop.test"]);
    gateway.lineage().archive(&leaf);
    assert_eq!(gateway.serial("shop.test").await, old);
    for kind in ["cert", "privkey", "chain"] {
        gateway.lineage().swap(kind);
        gateway.reload().await;
        assert_eq!(gateway.serial("shop.test").await, old, "{kind} swapped, the chain not yet");
    }
    gateway.lineage().swap("fullchain");
    gateway.reload().await;
    assert_eq!(gateway.serial("shop.test").await, leaf.serial);
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_leaves_the_last_good_one() {
    let gateway = Gateway::start().await;
    let good = gateway.serial("shop.test").await;
    let names = ["gateway.test", "shop.test"];
    let live = gateway.lineage().live().to_owned();
    let spoil = |file: &str, content: &str| {
        // In the place of the link, as a person with an editor does it.
        let path = live.join(file);
        fs::remove_file(&path).unwrap();
        fs::write(path, content).unwrap();
    };
    let other = ca().leaf(&names);
    let truncated = &other.certificate_pem[..other.certificate_pem.len() / 2];

    // (what is wrong, file, content)
    let table = [
        ("a key of another certificate", "privkey.pem", other.key_pem.as_str()),
        ("an empty key", "privkey.pem", ""),
        ("a certificate cut off", "fullchain.pem", truncated),
        ("no certificate", "fullchain.pem", "hello\n"),
        ("a key in the chain's place", "fullchain.pem", other.key_pem.as_str()),
    ];
    for (what, file, content) in table {
        let before = gateway.process().stderr().len();
        spoil(file, content);
        gateway.reload().await;
        assert_eq!(gateway.serial("shop.test").await, good, "{what}");
        let said = |stderr: &str| stderr.get(before..).unwrap_or_default().contains(file);
        until(what, || said(&gateway.process().stderr())).await;
        gateway.lineage().swap(file.strip_suffix(".pem").unwrap());
    }
    fs::remove_file(live.join("fullchain.pem")).unwrap();
    gateway.reload().await;
    assert_eq!(gateway.serial("shop.test").await, good, "the chain gone");

    let expired = ca().expired_leaf(&names);
    gateway.lineage().renew(&expired);
    gateway.reload().await;
    assert_eq!(gateway.serial("shop.test").await, good, "an expired one is worse than the old one");
    gateway.lineage().renew(&other);
    gateway.reload().await;
    assert_eq!(gateway.serial("shop.test").await, other.serial, "and a good one is taken");
    let stderr = gateway.process().stderr();
    let line_of_key = other.key_pem.lines().nth(1).unwrap();
    assert!(!stderr.contains(line_of_key), "no key is in any log");
}

#[tokio::test]
async fn a_new_certificate_is_taken_up_without_a_signal() {
    let gateway = Gateway::setup().watching().start().await;
    let leaf = ca().leaf(&["gateway.test", "shop.test"]);
    gateway.lineage().renew(&leaf);
    soon("the new certificate", async {
        while gateway.serial("shop.test").await != leaf.serial {
            // The gateway waits for the files to be quiet before it reads them.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_lineage_that_comes_later_is_found() {
    let setup = Gateway::setup();
    let listener = "    - name: late
      protocol: HTTPS
      port: 9443
      hostname: late.test
      tls:
        certificateRefs: [{name: late}]
";
    let file = fs::read_to_string(setup.path("common/gateway.yaml")).unwrap();
    let gateway = setup
        .file("common/gateway.yaml", &(file + listener))
        .socket("late", "127.0.0.1:0")
        .start()
        .await;
    let address = gateway.address("late");
    // The one of ${DOMAIN} is not for this name.
    assert!(Tls::of("late.test").serial(address).await.is_err());
    let leaf = ca().leaf(&["late.test"]);
    Lineage::create(&gateway.setup_ref().letsencrypt(), "late.test", &leaf);
    gateway.reload().await;
    assert_eq!(Tls::of("late.test").serial(address).await.unwrap(), leaf.serial);
}

#[tokio::test]
async fn a_tunnel_and_a_download_outlive_a_reload() {
    let slow = Backend::bind().await;
    let gateway = Gateway::in_front_of(slow.address).await;
    let mut client = gateway.wire().await;
    client.send("GET /download HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
    let mut origin = slow.accept().await;
    origin.request().await.unwrap();
    origin.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst").await;
    let head = client.head().await.unwrap();
    assert_eq!(head.status(), 200);

    gateway.remove("routes/shop.yaml");
    gateway.reload_with_removals().await;
    origin.send("other").await;
    assert_eq!(client.exactly(10).await, b"firstother");
}
