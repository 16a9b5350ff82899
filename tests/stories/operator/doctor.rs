//! `edge-gateway doctor`.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::support::{Gateway, NAMES, Origin, ca, refusing_address, serve_all, soon};

use super::unwrapped;

/// A gateway with all that a host should have around it, a Keycloak among its backends.
struct Patient {
    gateway: Gateway,
    _backend: Origin,
    bin: PathBuf,
}

impl Patient {
    async fn new() -> Self {
        let backend = Origin::replying("keycloak").await;
        let setup = Gateway::setup()
            .file("routes/id.yaml", &serve_all("keycloak", "shop.test", &[backend.address]))
            .file("root.pem", &ca().pem());
        // So that it knows the root of its certificate.
        let root = setup.path("root.pem").display().to_string();
        let gateway = setup.env("SSL_CERT_FILE", &root).start().await;
        let patient = Self { bin: gateway.path("bin"), _backend: backend, gateway };
        let setup = patient.gateway.setup_ref();
        let letsencrypt = setup.letsencrypt();
        let key = setup.lineage().live().join("privkey.pem");
        fs::set_permissions(key, Permissions::from_mode(0o600)).unwrap();
        for folder in ["renewal-hooks/deploy", "renewal"] {
            fs::create_dir_all(letsencrypt.join(folder)).unwrap();
        }
        let hook = letsencrypt.join("renewal-hooks/deploy/edge-gateway");
        fs::write(&hook, "#!/bin/sh\n").unwrap();
        fs::set_permissions(hook, Permissions::from_mode(0o755)).unwrap();
        patient.renews_by(&format!("webroot\nwebroot_path = {},", setup.acme().display()));
        fs::create_dir_all(&patient.bin).unwrap();
        patient.program("ufw", "echo 'Status: inactive'");
        patient.program("nft", "echo '{\"nftables\": []}'");
        patient.program("timedatectl", "echo NTPSynchronized=yes");
        patient.program("systemctl", "echo active; echo inactive");
        patient
    }

    /// What a program of the host says.
    fn program(&self, name: &str, script: &str) {
        let path = self.bin.join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }

    fn renews_by(&self, authenticator: &str) {
        let note = self.gateway.setup_ref().letsencrypt().join("renewal/gateway.test.conf");
        fs::write(note, format!("[renewalparams]\nauthenticator = {authenticator}\n")).unwrap();
    }

    /// The doctor's report, in one line, and its exit code.
    async fn examined(&self, flags: &[&str]) -> (String, Option<i32>) {
        let mut command = self.gateway.setup_ref().command("doctor");
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.bin.display()));
        let ports = [("--http-port", self.gateway.http()), ("--https-port", self.gateway.https())];
        for (flag, address) in ports {
            if !flags.contains(&flag) {
                command.args([flag, &address.port().to_string()]);
            }
        }
        for name in ["gateway.test", "shop.test"] {
            command.args(["--resolve", &format!("{name}=127.0.0.1")]);
        }
        command.args(flags);
        let ran = tokio::task::spawn_blocking(move || command.output().unwrap());
        let output = soon("the doctor has looked", ran).await.unwrap();
        assert!(output.stderr.is_empty(), "{output:?}");
        (unwrapped(&output), output.status.code())
    }
}

#[tokio::test]
async fn a_sound_host_is_told_so() {
    let patient = Patient::new().await;
    let (report, code) = patient.examined(&[]).await;
    assert_eq!(code, Some(0), "{report}");
    assert!(!report.contains("FAIL"), "{report}");
    let pid = patient.gateway.process().pid();
    let lines = [
        "OK configuration 4 objects in 3 files".to_owned(),
        format!("OK gateway pid {pid} serves 1 route on 2 listeners to 1 backend"),
        format!("WARN port {} edge-gateway (pid {pid}) listens", patient.gateway.http().port()),
        format!("WARN port {} edge-gateway (pid {pid}) listens", patient.gateway.https().port()),
        "OK firewall".into(),
        "WARN DNS shop.test is 127.0.0.1 here".into(),
        format!("OK challenge port {} serves a test token", patient.gateway.http().port()),
        "OK clock".into(),
        "OK certificate gateway.test".into(),
        "OK key".into(),
        "OK deploy hook".into(),
        "OK renewal timer certbot.timer is active".into(),
        "OK renewal gateway.test".into(),
        "OK backend 1 endpoint takes connections".into(),
        "is on loopback TCP; a UNIX socket saves about a sixth of the CPU per request".into(),
        "OK Keycloak httproute/envoy-gateway-system/keycloak/rule/0".into(),
    ];
    for line in lines {
        assert!(report.contains(&line), "{line} in {report}");
    }
    let left: Vec<_> = fs::read_dir(patient.gateway.webroot()).unwrap().collect();
    assert!(left.is_empty(), "the token is gone: {left:?}");
}

#[tokio::test]
async fn what_is_wrong_comes_with_the_command_that_mends_it() {
    type Harm = fn(&Patient);
    let closed = {
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        gone.local_addr().unwrap().port().to_string()
    };
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let other = taken.local_addr().unwrap().port().to_string();
    // (harm, flags, finding, mend)
    let table: [(Harm, &[&str], String, &str); 12] = [
        (
            |patient| patient.gateway.write("routes/broken.yaml", "kind: [\n"),
            &[],
            "FAIL configuration".into(),
            "-> edge-gateway check",
        ),
        (|_| {}, &["--http-port", &closed], format!("FAIL port {closed}"), "-> systemctl start"),
        (|_| {}, &["--https-port", &other], format!("FAIL port {other}"), "-> kill"),
        (
            |patient| patient.program("ufw", "echo 'Status: active'"),
            &[],
            "FAIL firewall ufw does not allow port".into(),
            "-> ufw allow",
        ),
        (
            |_| {},
            &["--acme-webroot", "/nowhere/acme"],
            "FAIL challenge the webroot /nowhere/acme is missing".into(),
            "-> install -d -m 0755 /nowhere/acme",
        ),
        (
            |patient| patient.program("timedatectl", "echo NTPSynchronized=no"),
            &[],
            "WARN clock".into(),
            "-> timedatectl set-ntp true",
        ),
        (
            |patient| patient.gateway.lineage().renew(&ca().overdue_leaf(&NAMES)),
            &[],
            "FAIL certificate gateway.test".into(),
            "-> certbot renew --cert-name gateway.test",
        ),
        (
            |patient| {
                let key = patient.gateway.lineage().live().join("privkey.pem");
                fs::set_permissions(key, Permissions::from_mode(0o644)).unwrap();
            },
            &[],
            "FAIL key everybody on this host can use".into(),
            "-> chmod o=",
        ),
        (
            |patient| patient.program("systemctl", "echo inactive; echo inactive; exit 3"),
            &[],
            "FAIL renewal timer certbot.timer is not active".into(),
            "-> systemctl enable --now certbot.timer",
        ),
        (
            |patient| patient.renews_by("standalone"),
            &[],
            "FAIL renewal gateway.test is renewed by `standalone`".into(),
            "-> certbot certonly --authenticator dns-PLUGIN --cert-name gateway.test",
        ),
        (
            |patient| {
                let address = refusing_address();
                let route = serve_all("blog", "shop.test", &[address]);
                patient.gateway.write("routes/blog.yaml", &route);
            },
            &[],
            "FAIL backend backend/envoy-gateway-system/blog".into(),
            "-> start the service",
        ),
        (
            |patient| {
                let file = fs::read_to_string(patient.gateway.path("routes/id.yaml")).unwrap();
                let filter = "      filters:\n        - type: RequestHeaderModifier\n          \
                              requestHeaderModifier:\n            set:\n              \
                              - { name: X-Forwarded-Host, value: old.test }\n      backendRefs:";
                let file = file.replace("      backendRefs:", filter);
                patient.gateway.write("routes/id.yaml", &file);
            },
            &[],
            "FAIL Keycloak httproute/envoy-gateway-system/keycloak/rule/0 sets x-forwarded-host to \
             `old.test`"
                .into(),
            "leave x-forwarded-host to the gateway",
        ),
    ];
    for (harm, flags, finding, mend) in table {
        let patient = Patient::new().await;
        harm(&patient);
        patient.gateway.reload().await;
        let (report, code) = patient.examined(flags).await;
        assert_eq!(code, Some(i32::from(report.contains("FAIL"))), "{finding}: {report}");
        let (_, after) =
            report.split_once(&finding).unwrap_or_else(|| panic!("{finding} in {report}"));
        assert!(after.contains(mend), "{mend} after {finding} in {report}");
    }
}

/// certbot and the gateway must mean the same folder.
#[tokio::test]
async fn a_webroot_that_is_not_the_gateways_is_found_out() {
    let patient = Patient::new().await;
    let other = patient.gateway.path("other-webroot");
    fs::create_dir(&other).unwrap();
    let other = other.to_str().unwrap();
    let (report, code) = patient.examined(&["--acme-webroot", other]).await;
    assert_eq!(code, Some(1), "{report}");
    assert!(report.contains("answers the challenge for gateway.test with 404"), "{report}");
    assert!(
        report.contains(&format!("-> start the gateway with --acme-webroot {other}")),
        "{report}"
    );
}

#[tokio::test]
async fn a_gateway_that_does_not_run_or_does_not_load_is_a_finding() {
    let patient = Patient::new().await;
    patient.gateway.write("routes/broken.yaml", "kind: [\n");
    patient.gateway.reload().await;
    let (report, code) = patient.examined(&[]).await;
    assert_eq!(code, Some(1), "{report}");
    assert!(report.contains("FAIL gateway runs an older configuration"), "{report}");
    patient.gateway.remove("routes/broken.yaml");

    patient.gateway.terminate();
    patient.gateway.exit().await;
    let files = patient.gateway.setup_ref().files();
    let files: Vec<_> = files.iter().map(String::as_str).collect();
    let (report, code) = patient.examined(&files).await;
    assert_eq!(code, Some(1), "{report}");
    assert!(report.contains("FAIL gateway no gateway answers at"), "{report}");
    assert!(report.contains("-> systemctl start edge-gateway"), "{report}");
}

#[tokio::test]
async fn a_report_for_strangers_names_nobody() {
    let patient = Patient::new().await;
    let (report, _) = patient.examined(&[]).await;
    for name in ["gateway.test", "shop.test"] {
        assert!(report.contains(name), "{name} in {report}");
    }
    let (report, _) = patient.examined(&["--redact"]).await;
    for name in ["gateway.test", "shop.test", "blog.test"] {
        assert!(!report.contains(name), "{name} in {report}");
    }
    assert!(report.contains("host-1 is 127.0.0.1 here"), "{report}");
}
