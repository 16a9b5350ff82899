//! What a person types: `check`, `--help`, `--version`, and what comes back.

use std::fs;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::support::{
    ENVOY_GATEWAY, GATEWAY, GATEWAY_CLASS, Gateway, Origin, http_route, in_package, serve_all,
    until,
};

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edge-gateway"));
    command.args(arguments).env_clear().env("DOMAIN", "gateway.test").output().unwrap()
}

fn text(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].concat().escape_ascii().to_string().replace("\\n", "\n")
}

#[test]
fn the_deployment_has_nothing_to_complain_of() {
    let config = in_package("tests/fixtures/deployment/standalone-prod.yaml");
    let root = TempDir::new().unwrap();
    fs::create_dir_all(root.path().join("etc")).unwrap();
    let folder = in_package("tests/fixtures/deployment");
    std::os::unix::fs::symlink(folder, root.path().join("etc/envoy-gateway")).unwrap();
    let root = root.path().to_str().unwrap();
    let arguments = ["check", "--config", config.to_str().unwrap(), "--config-root", root];
    let output = run(&arguments);
    assert!(output.status.success(), "{}", text(&output));

    let output = run(&[&arguments[..], &["--status"]].concat());
    let status = text(&output);
    for word in ["Accepted", "ResolvedRefs", "Programmed", "keycloak", "https-redirect", "eg"] {
        assert!(status.contains(word), "{word} in {status}");
    }
    assert!(status.contains("supportedFeatures:\n"), "{status}");
    assert!(status.contains("- name: HTTPRouteRetry\n"), "{status}");
}

#[test]
fn faults_are_told_all_at_once_with_their_places() {
    let root = TempDir::new().unwrap();
    let routes = root.path().join("etc/envoy-gateway/routes");
    fs::create_dir_all(&routes).unwrap();
    fs::create_dir_all(root.path().join("etc/envoy-gateway/common")).unwrap();
    let address = "127.0.0.1:80".parse().unwrap();
    let good = serve_all("shop", "shop.test", &[address]);
    fs::write(routes.join("a.yaml"), good.replace("port: 80", "port: 80000")).unwrap();
    fs::write(routes.join("b.yaml"), good.replace("value: /", "valu: /")).unwrap();
    let config = root.path().join("standalone.yaml");
    fs::write(&config, ENVOY_GATEWAY).unwrap();
    let output = run(&[
        "check",
        "--config",
        config.to_str().unwrap(),
        "--config-root",
        root.path().to_str().unwrap(),
    ]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let faults = text(&output);
    // Line and column of the value that is wrong.
    assert!(faults.contains("a.yaml:11:15"), "{faults}");
    assert!(faults.contains("b.yaml:27:"), "{faults}");
    assert!(faults.contains("valu"), "{faults}");
}

/// What reading finds and what meaning finds stand together, by file and place.
#[test]
fn check_prints_by_file_and_place() {
    let root = TempDir::new().unwrap();
    for folder in ["common", "routes"] {
        fs::create_dir_all(root.path().join("etc/envoy-gateway").join(folder)).unwrap();
    }
    let common = root.path().join("etc/envoy-gateway/common");
    fs::write(common.join("class.yaml"), GATEWAY_CLASS).unwrap();
    fs::write(common.join("gateway.yaml"), GATEWAY).unwrap();
    let routes = root.path().join("etc/envoy-gateway/routes");
    // Meaning finds a fault in the first, reading one in the second.
    let address = "127.0.0.1:80".parse().unwrap();
    let good = serve_all("shop", "shop.test", &[address]);
    fs::write(routes.join("a.yaml"), good.replace("          name: shop", "          name: none"))
        .unwrap();
    fs::write(routes.join("z.yaml"), "kind: Foo\napiVersion: example.com/v1\n").unwrap();
    let config = root.path().join("standalone.yaml");
    fs::write(&config, ENVOY_GATEWAY).unwrap();
    let root = root.path().to_str().unwrap();
    let output = run(&["check", "--config", config.to_str().unwrap(), "--config-root", root]);
    let told = text(&output);
    let places: Vec<_> = told.lines().filter_map(|line| line.split_once(".yaml:")).collect();
    assert!(places.len() >= 3, "{told}");
    assert!(places.is_sorted_by_key(|(file, _)| *file), "{told}");
    assert!(told.ends_with(": 1 fault, 2 warnings\n"), "{told}");
}

/// What looks as if it did something, and does not, is told.
#[test]
fn check_tells_of_what_has_no_effect() {
    let root = TempDir::new().unwrap();
    let folder = |name: &str| root.path().join("etc/envoy-gateway").join(name);
    for name in ["common", "routes", "routes/more"] {
        fs::create_dir_all(folder(name)).unwrap();
    }
    fs::write(folder("common/class.yaml"), GATEWAY_CLASS).unwrap();
    fs::write(folder("common/gateway.yaml"), GATEWAY).unwrap();
    let shop = serve_all("shop", "shop.test", &["127.0.0.1:80".parse().unwrap()]);
    let never = http_route(
        "never",
        &["never.test"],
        "- matches:\n    - headers: [{name: api_key, value: x}]\n    - headers: [{name: Forwarded, value: \
         x}]\n    - method: TRACE\n  backendRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: \
         shop, weight: 0}]\n",
    );
    fs::write(folder("routes/shop.yaml"), shop + &never).unwrap();
    for unread in ["route", "notes.txt", "shop.yaml.bak", "more/deep.yaml"] {
        fs::write(folder("routes").join(unread), "").unwrap();
    }
    for silent in [".hidden", "README", "shop.yaml~"] {
        fs::write(folder("routes").join(silent), "").unwrap();
    }
    let config = root.path().join("standalone.yaml");
    fs::write(&config, ENVOY_GATEWAY).unwrap();
    let root = root.path().to_str().unwrap();
    let arguments = ["check", "--config", config.to_str().unwrap(), "--config-root", root];
    let output = run(&arguments);
    let told = text(&output);
    for (what, why) in [
        ("routes/route: ", "does not end in"),
        ("routes/notes.txt: ", "does not end in"),
        ("routes/shop.yaml.bak: ", "does not end in"),
        ("routes/more: ", "directory inside of a directory"),
        ("matches[0].headers[0]: ", "use `api-key`"),
        ("matches[1].headers[0]: ", "`forwarded` is removed"),
        ("matches[2].method: ", "TRACE"),
        ("rules[0].backendRefs: ", "weight 0"),
    ] {
        let lines: Vec<_> = told.lines().filter(|line| line.contains(what)).collect();
        assert!(lines.len() == 1 && lines[0].contains(why), "{what} {why}: {told}");
        // Requests are answered 500, which nobody asked for.
        let is_fault = why == "weight 0";
        assert_eq!(lines[0].contains("warning: "), !is_fault, "{told}");
    }
    assert!(!output.status.success() && told.contains(": 1 fault, "), "{told}");
    for silent in [".hidden", "README", "shop.yaml~"] {
        assert!(!told.contains(silent), "{silent}: {told}");
    }
    let trusting = text(&run(&[&arguments[..], &["--trusted-proxies", "10.0.0.0/8"]].concat()));
    assert!(!trusting.contains("`forwarded`") && trusting.contains("api-key"), "{trusting}");
}

const COMMANDS: [&str; 7] = ["run", "dev", "check", "certs", "reload", "doctor", "echo"];

#[test]
fn help_names_the_commands_and_says_how_to_begin() {
    let output = run(&["--help"]);
    assert!(output.status.success());
    let help = text(&output);
    for command in COMMANDS {
        assert!(help.contains(command), "{command} in {help}");
    }
    for command in COMMANDS {
        let output = run(&[command, "--help"]);
        assert!(output.status.success(), "{command}: {}", text(&output));
    }
    let version = text(&run(&["--version"]));
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    assert!(!run(&["unheard-of"]).status.success());
}

/// `{env}` in the paths of the document, as one document for all environments has it.
#[tokio::test]
async fn each_environment_has_folders_of_its_own() {
    let (prod, stage) = (Origin::replying("prod").await, Origin::replying("stage").await);
    for (name, body) in [(None, "prod"), (Some("prod"), "prod"), (Some("stage"), "stage")] {
        let document =
            ENVOY_GATEWAY.replace("/etc/envoy-gateway/routes", "\"/etc/envoy-gateway/{env}\"");
        let setup = Gateway::setup()
            .file("standalone.yaml", &document)
            .file("prod/shop.yaml", &serve_all("shop", "shop.test", &[prod.address]))
            .file("stage/shop.yaml", &serve_all("shop", "shop.test", &[stage.address]));
        let setup = match name {
            Some(name) => setup.env("EDGE_GATEWAY_ENV", name),
            None => setup,
        };
        let gateway = setup.start().await;
        assert_eq!(gateway.get("http://shop.test/").await.text(), body, "{name:?}");
    }
}

/// What Envoy Gateway reads there counts here, unless the command line says otherwise.
#[tokio::test]
async fn the_document_sets_the_log_level() {
    let loud = format!("{ENVOY_GATEWAY}logging: {{level: {{default: error}}}}\n");
    let quiet = Gateway::setup().file("standalone.yaml", &loud).start().await;
    quiet.terminate();
    quiet.exit().await;
    let stderr = quiet.process().stderr();
    assert!(!stderr.contains("INFO"), "{stderr}");

    let setup = Gateway::setup().file("standalone.yaml", &loud).flag("--log-level info");
    let told = setup.start().await;
    told.terminate();
    told.exit().await;
    until("INFO", || told.process().stderr().contains("INFO")).await;
}

/// Who keeps the answer in a file and finds it empty later has to have been told by the exit code.
#[tokio::test]
async fn a_result_that_cannot_be_written_fails_the_command() {
    let shop = Origin::replying("shop").await;
    let route = serve_all("shop", "shop.test", &[shop.address]);
    let gateway = Gateway::setup().file("routes/shop.yaml", &route).start().await;
    let files = gateway.setup_ref().files();
    // (command, whether it is asked of the files)
    let table = [
        ("certs", false),
        ("certs -o json", false),
        ("routes", false),
        ("routes -o wide", false),
        ("status", false),
        ("status -o yaml", false),
        ("top --once --interval 100ms", false),
        ("top", false),
        ("explain http://shop.test/", false),
        ("reload --wait", false),
        ("certs setup shop.test", false),
        ("check", true),
        ("check --table", true),
        ("export kubernetes", true),
        ("--version", false),
        ("--help", false),
        ("certs --help", false),
    ];
    for (words, of_files) in table {
        let command = || {
            if !of_files && !words.starts_with('-') && !words.ends_with("help") {
                return gateway.setup_ref().command(words);
            }
            let mut command = Command::new(env!("CARGO_BIN_EXE_edge-gateway"));
            command.args(words.split_whitespace()).env_clear().env("DOMAIN", "gateway.test");
            command.args(files.iter().filter(|_| of_files));
            command
        };
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let output = command().stdout(full).output().unwrap();
        let said = text(&output);
        assert_eq!(output.status.code(), Some(1), "{words}: {said}");
        assert!(said.contains("No space left on device"), "{words}: {said}");

        // A reader that has seen enough is no fault.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = command().stdout(writer).output().unwrap();
        assert!(output.status.success(), "{words} | head: {}", text(&output));
        assert_eq!(text(&output), "", "{words} | head");
    }
}

/// A name from a file that was saved on Windows, in whatever case, finds its certificate; what is no
/// name is told as what it is.
#[test]
fn the_domain_is_a_name_however_it_is_written() {
    let setup = Gateway::setup();
    let check = |domain: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_edge-gateway"));
        command.arg("check").args(setup.files()).env_clear().env("DOMAIN", domain);
        text(&command.args(["--env-file", "/dev/null"]).output().unwrap())
    };
    for domain in
        ["gateway.test", "gateway.test\r", "gateway.test\n", "Gateway.Test", "gateway.test."]
    {
        let told = check(domain);
        assert!(told.ends_with("0 faults, 0 warnings\n"), "{domain:?}: {told}");
    }
    let told = check("https://gateway.test");
    assert!(told.contains("the environment variable DOMAIN is `https://gateway.test`"), "{told}");
}

#[test]
fn a_carriage_return_at_the_end_of_a_word_is_told_by_its_name() {
    let output = run(&["check", "--config", "/etc/edge-gateway.yaml\r"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    let told = text(&output);
    assert!(told.contains("ends with a carriage return"), "{told}");
    assert!(!output.stderr.contains(&b'\r'), "{told}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_edge-gateway"));
    let output = command.arg("check").env("EDGE_GATEWAY_CONFIG", "/etc/a.yaml\r").output().unwrap();
    assert!(text(&output).contains("EDGE_GATEWAY_CONFIG"), "{}", text(&output));
}

/// Where everything is refused, the first thing to know is what and why.
#[tokio::test]
async fn routes_says_why_nothing_is_served() {
    let shop = Origin::replying("shop").await;
    let route = serve_all("shop", "shop.test", &[shop.address]);
    let lost = route.replace("- name: eg\n", "- name: eg\n      sectionName: none\n");
    assert_ne!(route, lost);
    let gateway = Gateway::setup().file("routes/shop.yaml", &lost).start().await;
    let output = gateway.setup_ref().command("routes").output().unwrap();
    let told = text(&output);
    assert!(told.contains("no routes are served"), "{told}");
    assert!(told.contains("HTTPRoute ") && told.contains("/shop"), "{told}");
    assert!(!told.contains("Write an HTTPRoute"), "{told}");
}

/// What comes out is what a cluster takes: the gateway itself takes it, by the rules of the CRDs.
#[test]
fn the_deployment_moves_to_a_cluster() {
    let config = in_package("tests/fixtures/deployment/standalone-prod.yaml");
    let root = TempDir::new().unwrap();
    fs::create_dir_all(root.path().join("etc")).unwrap();
    let folder = in_package("tests/fixtures/deployment");
    std::os::unix::fs::symlink(folder, root.path().join("etc/envoy-gateway")).unwrap();
    let out = root.path().join("cluster");
    let output = run(&[
        "export",
        "kubernetes",
        "--config",
        config.to_str().unwrap(),
        "--config-root",
        root.path().to_str().unwrap(),
        "--dns-name",
        "gateway.test",
        "--dir",
        out.to_str().unwrap(),
    ]);
    assert!(output.status.success(), "{}", text(&output));

    let mut all = String::new();
    for entry in fs::read_dir(&out).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|kind| kind == "yaml") {
            all += &format!("---\n{}", fs::read_to_string(&path).unwrap());
        }
    }
    for part in [
        "hostname: keycloak.default.svc.cluster.local",
        "kind: Certificate",
        "- gateway.test",
        "secretName: eih-tls-cert",
        "kind: HTTPRoute",
        "kind: GatewayClass",
    ] {
        assert!(all.contains(part), "{part} in {all}");
    }
    assert!(!all.contains("keycloak.local") && !all.contains("kind: Secret\nmetadata"), "{all}");
    let list = fs::read_to_string(out.join("PROVIDE.txt")).unwrap();
    for part in ["cert-manager", "ClusterIssuer letsencrypt", "experimental", "enableBackend"] {
        assert!(list.contains(part), "{part} in {list}");
    }

    // The same objects, read again: every rule of the kinds holds, and every reference resolves.
    let again = TempDir::new().unwrap();
    for folder in ["common", "routes"] {
        fs::create_dir_all(again.path().join("etc/envoy-gateway").join(folder)).unwrap();
    }
    fs::write(again.path().join("etc/envoy-gateway/common/all.yaml"), all).unwrap();
    let config = again.path().join("gateway.yaml");
    fs::write(&config, ENVOY_GATEWAY).unwrap();
    let (config, root) = (config.to_str().unwrap(), again.path().to_str().unwrap());
    let output = run(&["check", "--config", config, "--config-root", root]);
    assert!(output.status.success(), "{}", text(&output));
}
