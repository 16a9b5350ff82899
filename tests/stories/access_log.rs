//! What is written of requests, and where: EnvoyProxy, the flags, and a reader who does not read.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::{Arc, Mutex};
use std::thread;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use serde_json::Value;
use tempfile::TempDir;

use crate::metrics::{scrape, value};
use crate::support::{
    Answer, GATEWAY_CLASS, Gateway, Origin, Setup, free_address, http_route, serve_all, until,
};

/// An EnvoyProxy with this `accessLog`, a YAML mapping written at the left edge, and the class that
/// names it.
fn logging(access_log: &str) -> String {
    let lines: String = access_log.lines().map(|line| format!("      {line}\n")).collect();
    format!(
        "{GATEWAY_CLASS}  parametersRef:\n    group: gateway.envoyproxy.io\n    kind: EnvoyProxy\n    \
         namespace: envoy-gateway-system\n    name: logs\n---\n\
         apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: EnvoyProxy\n\
         metadata: {{name: logs, namespace: envoy-gateway-system}}\n\
         spec:\n  telemetry:\n    accessLog:\n{lines}"
    )
}

/// A gateway in front of `origin` with this `accessLog`.
fn setup(origin: &Origin, access_log: &str) -> Setup {
    Gateway::setup()
        .file("common/gatewayclass.yaml", &logging(access_log))
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[origin.address]))
}

/// A folder for logs, and one of its files.
fn log_file() -> (TempDir, PathBuf) {
    let folder = TempDir::with_prefix("logs-").unwrap();
    let file = folder.path().join("access.log");
    (folder, file)
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

fn lines(file: &Path) -> Vec<String> {
    fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// The lines of a file, once there are so many.
async fn lines_of(file: &Path, count: usize) -> Vec<String> {
    until("the lines", || lines(file).len() >= count).await;
    lines(file)
}

/// Ends the gateway, which writes what is left.
async fn end(gateway: &Gateway) {
    gateway.terminate();
    assert!(gateway.exit().await.success());
}

#[tokio::test]
async fn json_of_ones_own_goes_to_a_file() {
    let origin = Origin::scripted(|_| {
        Answer::raw("HTTP/1.1 201 Created\r\nContent-Length: 3\r\nX-Build: 42\r\n\r\nyes")
    })
    .await;
    let (_folder, file) = log_file();
    let format = format!(
        "settings:\n\
         - format:\n    type: JSON\n    json:\n      \
               code: \"%RESPONSE_CODE%\"\n      \
               request: \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\"\n      \
               tenant: \"%REQ(X-Tenant)%\"\n      \
               build: \"%RESP(X-Build)%\"\n      \
               none: \"%REQ(X-None)%\"\n      \
               to: \"%UPSTREAM_HOST%\"\n      \
               from: \"%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%\"\n      \
               key: \"%REQ(Authorization)%\"\n      \
               fine: \"100 %% %BYTES_SENT%\"\n  \
           sinks: [{{type: File, file: {{path: {}}}}}]\n",
        file.display()
    );
    let gateway = setup(&origin, &format).start().await;
    let headers = "X-Tenant: blue\r\nAuthorization: Bearer topsecret\r\n";
    let reply = gateway.get_with("http://shop.test/a?token=topsecret", headers).await;
    assert_eq!(reply.status(), 201);

    let line = lines_of(&file, 1).await.remove(0);
    let entry: Value = serde_json::from_str(&line).unwrap();
    let want = serde_json::json!({
        "build": "42",
        "code": 201,
        "fine": "100 % 3",
        "from": "127.0.0.1",
        "key": "[redacted]",
        "none": null,
        "request": "GET /a?token=[redacted] HTTP/1.1",
        "tenant": "blue",
        "to": origin.address.to_string(),
    });
    assert_eq!(entry, want);
    assert!(!line.contains("topsecret"), "{line}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
    end(&gateway).await;
    assert_eq!(
        gateway.process().stdout(),
        Vec::<String>::new(),
        "the gateway's own log is replaced"
    );
}

/// Two settings, each with its format and its file; where no format is written it is Envoy Gateway's.
#[tokio::test]
async fn each_setting_writes_for_itself() {
    let origin = Origin::replying("yes").await;
    let (_folder, file) = log_file();
    let format = format!(
        "settings:\n\
         - format:\n    type: Text\n    text: |\n      \
               [%START_TIME(%Y-%m-%d)%] \"%REQ(:METHOD)% %REQ(:PATH)%\" %RESPONSE_CODE% %RESPONSE_FLAGS%\n  \
           sinks: [{{type: File, file: {{path: {}}}}}]\n\
         - sinks: [{{type: File, file: {{path: /dev/stdout}}}}]\n",
        file.display()
    );
    let gateway = setup(&origin, &format).start().await;
    assert_eq!(gateway.get("https://shop.test/a").await.status(), 200);
    assert_eq!(gateway.get("http://nobody.test/b").await.status(), 404);

    let entry = gateway.logged("the request", |entry| entry["response_code"] == 200).await;
    for (key, want) in [
        (":authority", "shop.test"),
        ("protocol", "HTTP/1.1"),
        ("x-envoy-origin-path", "/a"),
        ("x-forwarded-for", "127.0.0.1"),
        ("requested_server_name", "shop.test"),
        ("route_name", "httproute/envoy-gateway-system/shop/rule/0"),
    ] {
        assert_eq!(entry[key], want, "{key} of {entry}");
    }
    // Of a host that nobody serves, too.
    let entry = gateway.logged("the refusal", |entry| entry["response_code"] == 404).await;
    assert_eq!(entry["response_flags"], "NR", "{entry}");
    let mut lines = lines_of(&file, 2).await;
    lines.sort_by_key(|line| line.contains("404"));
    let words: Vec<_> = lines.iter().map(|line| line.split_once("] ").unwrap().1).collect();
    assert_eq!(words, ["\"GET /a\" 200 -", "\"GET /b\" 404 NR"]);
    end(&gateway).await;
    assert_eq!(gateway.process().stdout().len(), 2);
}

#[tokio::test]
async fn the_fields_that_a_backend_would_get_are_logged_without_a_backend() {
    let origin = Origin::replying("yes").await;
    let (_folder, file) = log_file();
    let format = format!(
        "settings: [{{format: {{type: Text, text: \"%RESPONSE_CODE% %REQ(X-FORWARDED-FOR)% \
         %REQ(X-FORWARDED-PROTO)% %REQ(X-FORWARDED-HOST)%\"}}, \
         sinks: [{{type: File, file: {{path: {}}}}}]}}]\n",
        file.display()
    );
    let moved = "\
- matches: [{path: {value: /moved}}]
  filters: [{type: RequestRedirect, requestRedirect: {scheme: https, statusCode: 301}}]
";
    let gateway = setup(&origin, &format)
        .file("routes/moved.yaml", &http_route("moved", &["shop.test"], moved))
        .start()
        .await;
    let forged = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Host: evil.test\r\n";
    for (path, status) in [("/", 200), ("/moved", 301)] {
        let url = format!("http://shop.test{path}");
        assert_eq!(gateway.get_with(&url, forged).await.status(), status);
    }
    let host = gateway.address("http").port();
    let told = |line: &String| line.replace(&format!(":{host}"), "");
    let mut lines: Vec<String> = lines_of(&file, 2).await.iter().map(told).collect();
    // Lines of two workers are in no order.
    lines.sort();
    assert_eq!(lines, ["200 127.0.0.1 http shop.test", "301 127.0.0.1 http shop.test"]);
}

#[tokio::test]
async fn a_log_that_is_disabled_is_not_written() {
    let origin = Origin::replying("yes").await;
    let gateway = setup(&origin, "disable: true\n").start().await;
    assert_eq!(gateway.get("http://shop.test/a").await.status(), 200);
    assert_eq!(gateway.get("http://nobody.test/b").await.status(), 404);
    end(&gateway).await;
    assert_eq!(gateway.process().stdout(), Vec::<String>::new());
}

#[tokio::test]
async fn a_setting_is_for_what_it_matches() {
    let origin = Origin::replying("yes").await;
    let (_folder, file) = log_file();
    let format = format!(
        "settings:\n\
         - format: {{type: Text, text: \"%REQ(:PATH)% %RESPONSE_CODE%\"}}\n  \
           matches:\n  - response.code >= 400\n  - \"!('x-probe' in request.headers)\"\n  \
           sinks: [{{type: File, file: {{path: {}}}}}]\n",
        file.display()
    );
    let gateway = setup(&origin, &format).start().await;
    assert_eq!(gateway.get("http://shop.test/fine").await.status(), 200);
    let probe = gateway.get_with("http://nobody.test/probe", "X-Probe: yes\r\n").await;
    assert_eq!(probe.status(), 404);
    assert_eq!(gateway.get("http://nobody.test/lost").await.status(), 404);
    end(&gateway).await;
    assert_eq!(lines(&file), ["/lost 404"]);
}

/// Whatever a client sends, it is one line, and stays in its place.
#[tokio::test]
async fn no_client_forges_a_line() {
    let origin = Origin::replying("yes").await;
    let (_folder, json) = log_file();
    let text = json.with_extension("text");
    let format = format!(
        "settings:\n\
         - format: {{type: JSON, json: {{agent: \"%REQ(USER-AGENT)%\", note: \"%REQ(X-Note)% of %REQ(:PATH)%\"}}}}\n  \
           sinks: [{{type: File, file: {{path: {}}}}}]\n\
         - format: {{type: Text, text: '\"%REQ(USER-AGENT)%\" \"%REQ(X-Note)%\" \"%REQ(:PATH)%\"'}}\n  \
           sinks: [{{type: File, file: {{path: {}}}}}]\n",
        json.display(),
        text.display()
    );
    let gateway = setup(&origin, &format).start().await;
    let mut request =
        b"GET /?%0aforged HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n".to_vec();
    request.extend_from_slice(b"User-Agent: \"} {\"agent\":\"forged\"}\t\xc2\x9b\xff\\\r\n");
    request.extend_from_slice(b"X-Note: \" 200 \"\xe2\x80\xa8\\x0a\r\n\r\n");
    let answer = gateway.raw(request).await;
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", answer.escape_ascii());
    // A line feed never gets that far; the line of the refusal is whole all the same.
    let answer = gateway.raw("GET /b HTTP/1.1\r\nHost: shop.test\r\nX-Note: a\rb\r\n\r\n").await;
    assert!(answer.starts_with(b"HTTP/1.1 400"), "{}", answer.escape_ascii());
    end(&gateway).await;

    for file in [&json, &text] {
        let bytes = fs::read(file).unwrap();
        let printable = |byte: &u8| *byte == b'\n' || (0x20..0x7f).contains(byte);
        assert!(bytes.iter().all(printable), "{}", bytes.escape_ascii());
        assert_eq!(lines(file).len(), 2, "{}", bytes.escape_ascii());
    }
    let entries: Vec<Value> =
        lines(&json).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let entry = entries.iter().find(|entry| entry["agent"] != Value::Null).unwrap();
    assert_eq!(entry["agent"], "\"} {\"agent\":\"forged\"}\t\u{9b}\u{ff}\\");
    assert_eq!(entry["note"], "\" 200 \"\u{2028}\\x0a of /?%0aforged");
    let want = "\"\\x22} {\\x22agent\\x22:\\x22forged\\x22}\\x09\\xC2\\x9B\\xFF\\x5C\" \
                \"\\x22 200 \\x22\\xE2\\x80\\xA8\\x5Cx0a\" \"/?%0aforged\"";
    assert!(lines(&text).iter().any(|line| line == want), "{:?}", lines(&text));
}

/// As logrotate does it: the file gets another name, and the gateway is told to reload.
#[tokio::test]
async fn a_file_that_was_rotated_is_opened_anew_by_a_reload() {
    let origin = Origin::replying("yes").await;
    let (_folder, file) = log_file();
    let old = file.with_extension("log.1");
    let format = format!(
        "settings: [{{format: {{type: Text, text: \"%REQ(:PATH)%\"}}, \
         sinks: [{{type: File, file: {{path: {}}}}}]}}]\n",
        file.display()
    );
    let gateway = setup(&origin, &format).start().await;
    assert_eq!(gateway.get("http://shop.test/one").await.status(), 200);
    lines_of(&file, 1).await;
    fs::rename(&file, &old).unwrap();
    assert_eq!(gateway.get("http://shop.test/two").await.status(), 200);
    assert_eq!(lines_of(&old, 2).await, ["/one", "/two"]);
    gateway.reload().await;
    assert_eq!(gateway.get("http://shop.test/three").await.status(), 200);
    assert_eq!(lines_of(&file, 1).await, ["/three"]);
    end(&gateway).await;
    assert_eq!(lines(&old), ["/one", "/two"]);
}

/// As Envoy's and nginx's rotation does it; here no line comes between.
#[tokio::test]
async fn a_file_that_was_rotated_is_opened_anew_by_sigusr1() {
    let origin = Origin::replying("yes").await;
    let (_folder, file) = log_file();
    let old = file.with_extension("log.1");
    let format = format!(
        "settings: [{{format: {{type: Text, text: \"%REQ(:PATH)%\"}}, \
         sinks: [{{type: File, file: {{path: {}}}}}]}}]\n",
        file.display()
    );
    let gateway = setup(&origin, &format).start().await;
    assert_eq!(gateway.get("http://shop.test/one").await.status(), 200);
    lines_of(&file, 1).await;
    fs::rename(&file, &old).unwrap();
    gateway.process().signal(Signal::SIGUSR1);
    until("the new file", || file.exists()).await;
    // What is written to the old file from now on would keep it open, whose space is wanted back.
    until("the old file is closed", || {
        let open = fs::read_dir(format!("/proc/{}/fd", gateway.process().pid())).unwrap();
        !open.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to == old))
    })
    .await;
    assert_eq!(gateway.get("http://shop.test/two").await.status(), 200);
    assert_eq!(lines_of(&file, 1).await, ["/two"]);
    end(&gateway).await;
    assert_eq!(lines(&old), ["/one"]);
}

/// A disk that is full costs lines and no request; which file it is and why is told while it lasts.
#[tokio::test]
async fn a_full_disk_is_told_with_file_and_reason_as_long_as_it_lasts() {
    let origin = Origin::replying("yes").await;
    let metrics = free_address();
    let format = "settings: [{format: {type: Text, text: \"%REQ(:PATH)%\"}, \
                  sinks: [{type: File, file: {path: /dev/full}}]}]\n";
    let gateway = setup(&origin, format).metrics_at(metrics).start().await;
    let reason = "No space left on device";
    let status = || text(&gateway.setup_ref().command("status").output().unwrap());
    assert!(!status().contains(reason), "{}", status());
    for _ in 0..20 {
        assert_eq!(gateway.get("http://shop.test/one").await.status(), 200);
    }
    until("the event", || {
        let said = gateway.process().stderr();
        let mut events = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.any(|event| {
            event["message"] == "log cannot be written"
                && event["to"] == "/dev/full"
                && event["lines"].is_u64()
                && event["error"].as_str().is_some_and(|error| error.contains(reason))
        })
    })
    .await;
    let told = format!("log cannot be written: /dev/full: {reason}");
    assert!(status().contains(&told), "{}", status());
    assert!((value(&scrape(metrics).await, "edge_gateway_logs_failing") - 1.0).abs() < 0.1);
}

/// A log is no reason to refuse a request: what is wrong with it is told with its place, and until it
/// is mended the gateway's own log is written.
#[tokio::test]
async fn a_log_that_cannot_be_written_takes_nothing_down() {
    let origin = Origin::replying("yes").await;
    let (_folder, file) = log_file();
    let nowhere = file.with_file_name("none").join("access.log");
    let format = |text: &str, file: &Path| {
        format!(
            "settings: [{{format: {{type: Text, text: \"{text}\"}}, \
             sinks: [{{type: File, file: {{path: {}}}}}]}}]\n",
            file.display()
        )
    };
    let gateway = setup(&origin, &format("%REQ(:PATH%", &file)).start().await;
    assert_eq!(gateway.get("http://shop.test/one").await.status(), 200);
    gateway.logged("a line of the own log", |entry| entry["path"] == "/one").await;
    until("the fault", || {
        let told = gateway.process().stderr();
        // Line and column of the format.
        told.contains(
            "common/gatewayclass.yaml:19:46: EnvoyProxy envoy-gateway-system/logs: \
                       spec.telemetry.accessLog.settings[0].format.text: `%REQ(` has no closing",
        )
    })
    .await;

    gateway.write("common/gatewayclass.yaml", &logging(&format("%REQ(:PATH)%", &nowhere)));
    gateway.reload().await;
    until("the other fault", || {
        gateway.process().stderr().contains("none/access.log` cannot be opened")
    })
    .await;
    assert_eq!(gateway.get("http://shop.test/two").await.status(), 200);
    gateway.logged("a line of the own log", |entry| entry["path"] == "/two").await;

    gateway.write("common/gatewayclass.yaml", &logging(&format("%REQ(:PATH)%", &file)));
    gateway.reload().await;
    assert_eq!(gateway.get("http://shop.test/three").await.status(), 200);
    assert_eq!(lines_of(&file, 1).await, ["/three"]);

    // What an API server would not take is not loaded at all.
    gateway.write("common/gatewayclass.yaml", &logging("settings: [{sinks: []}]\n"));
    gateway.reload().await;
    until("the refusal", || gateway.process().stderr().contains("0 items are too few")).await;
    assert_eq!(gateway.get("http://shop.test/four").await.status(), 200);
    assert_eq!(lines_of(&file, 2).await, ["/three", "/four"]);
}

#[tokio::test]
async fn the_command_line_chooses_by_status_and_by_chance() {
    let origin = Origin::scripted(|seen| match &*seen.target() {
        "/broken" => Answer::status(503, "no"),
        _ => Answer::ok("yes"),
    })
    .await;
    // (flag, paths that are logged)
    let table = [
        ("--access-log-status 400-499", vec!["/lost"]),
        ("--access-log-status 4xx,503", vec!["/broken", "/lost"]),
        // Errors are not left to chance.
        ("--access-log-sample 1/1000000", vec!["/broken", "/lost"]),
        ("--access-log-sample 1/1", vec!["/broken", "/fine", "/lost"]),
    ];
    for (flag, want) in table {
        let gateway = Gateway::setup()
            .flag(flag)
            .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[origin.address]))
            .start()
            .await;
        assert_eq!(gateway.get("http://shop.test/fine").await.status(), 200);
        assert_eq!(gateway.get("http://shop.test/broken").await.status(), 503);
        assert_eq!(gateway.get("http://nobody.test/lost").await.status(), 404);
        end(&gateway).await;
        let lines = gateway.process().stdout();
        let path = |line: &String| {
            let entry: Value = serde_json::from_str(line).unwrap();
            entry["path"].as_str().unwrap().to_owned()
        };
        let mut logged: Vec<String> = lines.iter().map(path).collect();
        logged.sort();
        assert_eq!(logged, want, "{flag}");
    }
}

/// Whoever reads the log may stop: requests go on being answered, what does not fit into the queue is
/// counted, and lines come again with the reader.
#[tokio::test]
async fn a_reader_who_does_not_read_costs_lines_and_no_request() {
    /// Requests that are sent between two looks at the metrics.
    const MANY: usize = 200;

    let at = free_address();
    let origin = Origin::replying("yes").await;
    let folder = TempDir::new().unwrap();
    let pipe = folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    // Both ends, so that the gateway's is opened without a wait.
    let end_of_reader: File = OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    let gateway = Gateway::setup()
        .metrics_at(at)
        .log_to(&pipe)
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[origin.address]))
        .start()
        .await;
    let dropped = async || {
        let series = "edge_gateway_access_log_dropped_total";
        value(&scrape(at).await, series)
    };
    assert!(dropped().await.abs() < f64::EPSILON);

    let long = "a".repeat(7000);
    let mut wire = gateway.wire().await;
    let mut sent = 0;
    while dropped().await < 1.0 {
        for _ in 0..MANY {
            wire.send(format!("GET /{long} HTTP/1.1\r\nHost: shop.test\r\n\r\n")).await;
            assert_eq!(wire.reply().await.status(), 200, "request {sent}");
            sent += 1;
        }
        // The queue is 8 MiB, and a pipe holds little.
        assert!(sent < 10_000, "nothing is dropped");
    }

    let read = Arc::new(Mutex::new(Vec::new()));
    let reader = Arc::clone(&read);
    thread::spawn(move || {
        for line in BufReader::new(end_of_reader).lines().map_while(Result::ok) {
            reader.lock().unwrap().push(line);
        }
    });
    // What was queued comes out, whole, and no more is lost.
    until("the queue is empty", || {
        let lost = sent - read.lock().unwrap().len();
        lost < sent && !gateway.process().has_ended() && lost <= MANY
    })
    .await;
    wire.send("GET /again HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
    assert_eq!(wire.reply().await.status(), 200);
    sent += 1;
    let has_come = |line: &String| line.contains("\"path\":\"/again\"");
    until("a line of later", || read.lock().unwrap().iter().any(has_come)).await;
    let lost = dropped().await;
    until("every line is accounted for", || {
        let read = read.lock().unwrap().len();
        #[allow(clippy::cast_precision_loss, reason = "a few thousand")]
        let accounted = (sent - read) as f64;
        (accounted - lost).abs() < f64::EPSILON
    })
    .await;
    for line in read.lock().unwrap().iter() {
        serde_json::from_str::<Value>(line).unwrap();
    }
    let told = "\"message\":\"log lines dropped\"";
    until("the loss is told", || gateway.process().stderr().contains(told)).await;
}

/// A reload that is refused leaves nothing behind on the disk.
#[tokio::test]
async fn a_refused_reload_makes_no_log_file() {
    let origin = Origin::replying("shop").await;
    let (_folder, file) = log_file();
    let gateway = Gateway::in_front_of(origin.address).await;
    let settings = format!(
        "settings:\n  - format: {{type: Text, text: \"%REQ(:PATH)%\\n\"}}\n    \
         sinks: [{{type: File, file: {{path: {}}}}}]\n",
        file.display()
    );
    gateway.write("common/gatewayclass.yaml", &logging(&settings));
    let good = fs::read_to_string(gateway.path("routes/shop.yaml")).unwrap();
    gateway.write("routes/shop.yaml", &good.replace("type: PathPrefix", "type: PathPrefx"));
    let ready = gateway.reload().await;
    assert!(ready.value("STATUS").unwrap().contains("last reload failed"), "{ready:?}");
    assert!(!file.exists());
    gateway.write("routes/shop.yaml", &good);
    gateway.reload().await;
    assert!(file.exists());
    assert_eq!(gateway.get("http://shop.test/path").await.text(), "shop");
    until("the line", || lines(&file) == ["/path"]).await;
}
