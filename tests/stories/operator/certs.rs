//! `edge-gateway certs` and `certs setup`.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use rcgen::{DnType, date_time_ymd};
use serde_json::{Value, json};

use crate::metrics::scrape;
use crate::support::{Gateway, Leaf, NAMES, Setup, ca, free_address, serve_all};

use super::{operator, stderr, stdout, unwrapped};

fn serial(leaf: &Leaf) -> String {
    let hex = format!("{:x}", leaf.serial);
    if hex.len() % 2 == 0 { hex } else { format!("0{hex}") }
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[tokio::test]
async fn the_certificates_that_are_served_are_listed() {
    let gateway = Gateway::start().await;
    let setup = gateway.setup_ref();
    let leaf = ca().leaf(&NAMES);
    gateway.lineage().renew(&leaf);
    let before = operator(setup, "certs", &[]).await;
    assert!(!stdout(&before).contains(&serial(&leaf)), "it is not served yet: {before:?}");
    gateway.reload().await;

    let certs = operator(setup, "certs", &[]).await;
    assert_eq!(certs.status.code(), Some(0), "{certs:?}");
    let table = stdout(&certs);
    let words = [
        "gateway.test",
        "shop.test",
        "*.example.test",
        "Stories Root",
        "ECDSA",
        "lineage gateway.test",
        "listener envoy-gateway-system/eg/https, port 8443",
        &format!("serial {}", serial(&leaf)),
    ];
    for word in words {
        assert!(table.contains(word), "{word} in {table}");
    }
    assert!(table.lines().all(|line| line.chars().count() <= 100), "{table}");
    assert!(!table.contains('\x1b'), "no colour where there is no terminal: {table}");

    let certs = json(&operator(setup, "certs", &["--json"]).await);
    let row = &certs["certificates"][0];
    assert_eq!(row["verdict"], "good", "{certs}");
    assert_eq!(row["certificate"]["serial"], serial(&leaf), "{certs}");
    assert_eq!(row["certificate"]["lineage"], "gateway.test", "{certs}");
    assert_eq!(row["certificate"]["names"][1], "shop.test", "{certs}");
    assert_eq!(row["listeners"][0]["name"], "envoy-gateway-system/eg/https", "{certs}");
    assert!(row["certificate"]["seconds_left"].as_i64() > Some(86_400), "{certs}");
    assert_eq!(certs["certificates"].as_array().unwrap().len(), 1, "{certs}");
}

/// The exit code is what a monitoring job looks at.
#[tokio::test]
async fn a_certificate_that_wants_somebody_fails_the_command() {
    type Break = fn(&Setup);
    // (what is done to the files, verdict, part of what is said)
    let table: [(Break, &str, &str); 9] = [
        (
            |setup| setup.lineage().renew(&ca().overdue_leaf(&NAMES)),
            "overdue",
            "renewal is overdue",
        ),
        (|setup| setup.lineage().renew(&ca().expired_leaf(&NAMES)), "expired", "expired on 2020-"),
        (
            |setup| fs::remove_dir_all(setup.letsencrypt()).unwrap(),
            "missing",
            "no certbot lineage of the name",
        ),
        (
            |setup| fs::write(setup.lineage().live().join("privkey.pem"), "nothing").unwrap(),
            "missing",
            "no private key",
        ),
        (
            |setup| setup.lineage().renew(&ca().leaf(&["other.test"])),
            "not-for-host",
            "is not for `shop.test`",
        ),
        (
            |setup| {
                let leaf = ca().intermediate().leaf(&NAMES);
                setup.lineage().renew(&Leaf { chain_pem: String::new(), ..leaf });
            },
            "broken-chain",
            "the chain ends with the certificate of the host",
        ),
        (
            |setup| {
                let leaf = ca().intermediate().leaf(&NAMES);
                let chain_pem = ca().intermediate_with(|params| {
                    params.distinguished_name.push(DnType::CommonName, "Another");
                });
                let chain_pem = chain_pem.pem();
                setup.lineage().renew(&Leaf { chain_pem, ..leaf });
            },
            "broken-chain",
            "which has not issued the first certificate",
        ),
        (
            |setup| {
                let old = ca().intermediate_with(|params| {
                    params.not_after = date_time_ymd(2024, 1, 1);
                });
                setup.lineage().renew(&old.leaf(&NAMES));
            },
            "broken-chain",
            "expired on 2024-01-01",
        ),
        (
            |setup| setup.lineage().renew(&ca().intermediate().leaf(&NAMES)),
            "good",
            "it leads to CN=Stories Root, which is not among the CA certificates of this host",
        ),
    ];
    for (change, verdict, problem) in table {
        let setup = Gateway::setup();
        let gateway = fs::read_to_string(setup.path("common/gateway.yaml")).unwrap();
        let gateway = gateway.replace("      tls:\n", "      hostname: shop.test\n      tls:\n");
        let setup = setup.file("common/gateway.yaml", &gateway);
        change(&setup);
        let files = setup.files();
        let files: Vec<_> = files.iter().map(String::as_str).collect();
        let code = Some(i32::from(verdict != "good"));

        let certs = operator(&setup, "certs", &files).await;
        assert_eq!(certs.status.code(), code, "{verdict}: {certs:?}");
        assert!(unwrapped(&certs).contains(problem), "{problem}: {certs:?}");
        let certs = operator(&setup, "certs", &[&files[..], &["--json"]].concat()).await;
        assert_eq!(certs.status.code(), code, "{verdict}: {certs:?}");
        assert_eq!(json(&certs)["certificates"][0]["verdict"], verdict, "{certs:?}");
    }
}

/// A host that has the root knows the chain to be good, and says nothing.
#[tokio::test]
async fn a_chain_to_a_root_of_this_host_is_not_spoken_of() {
    let setup = Gateway::setup();
    setup.lineage().renew(&ca().intermediate().leaf(&NAMES));
    let root = setup.path("root.pem");
    fs::write(&root, ca().pem()).unwrap();
    let mut command = setup.command("certs");
    command.env("SSL_CERT_FILE", &root).args(setup.files()).arg("--json");
    let certs = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert_eq!(certs.status.code(), Some(0), "{certs:?}");
    let row = &json(&certs)["certificates"][0];
    assert_eq!(row["notes"].as_array().map(Vec::len), Some(0), "{row}");
}

/// Clients of a name that is served and in no certificate are refused, whatever else is in order.
#[tokio::test]
async fn a_hostname_without_a_certificate_is_named() {
    let route = serve_all("wiki", "wiki.test", &["127.0.0.1:9".parse().unwrap()]);
    let blog = serve_all("blog", "blog.test", &["127.0.0.1:9".parse().unwrap()]);
    let metrics = free_address();
    let setup = Gateway::setup().file("routes/wiki.yaml", &route).file("routes/blog.yaml", &blog);
    let gateway = setup.metrics_at(metrics).start().await;
    let setup = gateway.setup_ref();

    let certs = operator(setup, "certs", &["--json"]).await;
    assert_eq!(certs.status.code(), Some(1), "{certs:?}");
    let certs = json(&certs);
    let rows = certs["certificates"].as_array().unwrap();
    assert_eq!(rows.len(), 2, "{certs}");
    assert_eq!((&rows[0]["verdict"], &rows[1]["verdict"]), (&"good".into(), &"uncovered".into()));
    assert_eq!(rows[1]["hostnames"], json!(["wiki.test"]), "{certs}");
    let table = unwrapped(&operator(setup, "certs", &[]).await);
    assert!(table.contains("wiki.test none") && table.contains("is for `wiki.test`"), "{table}");

    let files = setup.files();
    let mut command = Command::new(env!("CARGO_BIN_EXE_edge-gateway"));
    command.env_clear().env("DOMAIN", "gateway.test").arg("check").args(files);
    let check = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let told = stdout(&check) + &stderr(&check);
    let told = told.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(told.contains("HTTPRoute envoy-gateway-system/wiki: spec.hostnames"), "{told}");
    assert!(!told.contains("is for `blog.test`"), "{told}");

    let text = scrape(metrics).await;
    let listener = "listener=\"envoy-gateway-system/eg/https\"";
    let want = format!("edge_gateway_listener_hostnames_without_certificate{{{listener}}} 1\n");
    assert!(text.contains(&want), "{text}");
    assert!(
        text.contains("edge_gateway_certificate_chain_valid{lineage=\"gateway.test\""),
        "{text}"
    );
}

/// What is on disk is broken, what is served is not: both are told.
#[tokio::test]
async fn a_broken_file_is_told_beside_the_certificate_that_is_served_on() {
    let gateway = Gateway::start().await;
    let served = operator(gateway.setup_ref(), "certs", &["--json"]).await;
    let served = json(&served)["certificates"][0]["certificate"].clone();
    let chain = gateway.lineage().live().join("fullchain.pem");
    fs::remove_file(&chain).unwrap();
    fs::write(&chain, "nothing").unwrap();
    gateway.reload().await;

    let certs = operator(gateway.setup_ref(), "certs", &["--json"]).await;
    assert_eq!(certs.status.code(), Some(1), "{certs:?}");
    let row = &json(&certs)["certificates"][0];
    assert_eq!(row["verdict"], "broken", "{row}");
    assert_eq!(row["certificate"]["serial"], served["serial"], "{row}");
    assert!(row["problems"][0].as_str().unwrap().contains("no certificate in it"), "{row}");
}

/// Nobody runs: the files are read, as far as they are there.
#[tokio::test]
async fn without_a_gateway_the_files_are_asked() {
    let setup = Gateway::setup();
    let mut command = setup.command("certs");
    command.env("EDGE_GATEWAY_CONFIG", "/nowhere/edge-gateway.yaml");
    let certs = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert_eq!(certs.status.code(), Some(1), "{certs:?}");
    let told = stderr(&certs);
    assert!(told.contains(setup.control_socket().to_str().unwrap()), "{told}");
    assert!(told.contains("/nowhere/edge-gateway.yaml"), "{told}");
}

/// A service's variables are in a file that only the service manager reads.
#[tokio::test]
async fn variables_of_the_service_come_from_its_environment_file() {
    let setup = Gateway::setup().file("environment", "# of the service\nDOMAIN=\"gateway.test\"\n");
    let file = setup.path("environment").display().to_string();
    for (flags, code) in [(&["--env-file", &*file][..], 0), (&[], 1)] {
        let mut command = setup.command("certs");
        command.env_remove("DOMAIN").args(setup.files()).args(flags);
        let certs = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert_eq!(certs.status.code(), Some(code), "{flags:?}: {certs:?}");
    }
}

#[tokio::test]
async fn the_command_for_the_first_certificate_is_printed_and_run() {
    let gateway = Gateway::start().await;
    let setup = gateway.setup_ref();
    let webroot = setup.acme().display().to_string();
    let letsencrypt = setup.letsencrypt().display().to_string();
    let want = format!(
        "certbot certonly --webroot -w {webroot} --config-dir {letsencrypt} -d a.test -d b.test"
    );
    let printed = operator(setup, "certs setup", &["a.test", "b.test"]).await;
    assert!(printed.status.success(), "{printed:?}");
    assert_eq!(stdout(&printed).trim_end(), want);
    let printed = operator(setup, "certs setup", &["203.0.113.7"]).await;
    assert!(printed.status.success(), "{printed:?}");
    let ends = "--preferred-profile shortlived --ip-address 203.0.113.7";
    assert!(stdout(&printed).trim_end().ends_with(ends), "{printed:?}");
    assert!(stderr(&printed).contains("certbot 5.4"), "{printed:?}");

    // With a hook in its place, and a certbot that writes down what it was told.
    let hook = setup.letsencrypt().join("renewal-hooks/deploy/edge-gateway");
    fs::create_dir_all(hook.parent().unwrap()).unwrap();
    fs::write(&hook, "#!/bin/sh\n").unwrap();
    let bin = setup.path("bin");
    fs::create_dir_all(&bin).unwrap();
    let told = setup.path("told");
    let script = format!("#!/bin/sh\necho \"$@\" >{}\nexit ${{FAILS:-0}}\n", told.display());
    fs::write(bin.join("certbot"), script).unwrap();
    fs::set_permissions(bin.join("certbot"), Permissions::from_mode(0o755)).unwrap();
    for (fails, code) in [("0", 0), ("3", 1)] {
        let mut command = setup.command("certs setup");
        command.args(["--run", "--email", "a@a.test", "a.test", "--", "--dry-run"]);
        command.env("PATH", &bin).env("FAILS", fails);
        let ran = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert_eq!(ran.status.code(), Some(code), "{ran:?}");
        let want = format!(
            "certonly --webroot -w {webroot} --config-dir {letsencrypt} -d a.test \
             --email a@a.test --deploy-hook {} --dry-run\n",
            hook.display()
        );
        assert_eq!(fs::read_to_string(&told).unwrap(), want);
    }
}

#[tokio::test]
async fn a_name_that_port_80_cannot_prove_is_refused() {
    let setup = Gateway::setup();
    for name in ["*.a.test", "10.0.0.1", "--help=x", "bücher.example"] {
        let refused = operator(&setup, "certs setup", &[name]).await;
        assert_eq!(refused.status.code(), Some(2), "{name}: {refused:?}");
    }
}
