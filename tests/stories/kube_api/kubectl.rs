//! With kubectl itself, in every version that there is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::needs::{INSTALL, needs};
use crate::support::until;

use super::{Api, output};

/// Every kubectl that is to be tried: the one in the path, and Debian's where it was unpacked.
fn kubectls() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let named = std::env::split_paths(&path).map(|directory| directory.join("kubectl"));
    let debian = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/.cache/kubernetes-client/usr/bin/kubectl");
    let mut found: Vec<PathBuf> = named.filter(|path| path.is_file()).take(1).collect();
    found.extend(Some(debian).filter(|path| path.is_file()));
    let there = (!found.is_empty()).then_some(found);
    needs("kubectl", there, INSTALL).unwrap_or_default()
}

struct Kubectl<'a> {
    program: PathBuf,
    api: &'a Api,
    home: tempfile::TempDir,
}

impl Kubectl<'_> {
    fn command(&self, arguments: &str) -> Command {
        let config = self.home.path().join("config");
        fs::write(&config, &self.api.kubeconfig).unwrap();
        let mut command = Command::new(&self.program);
        command.env_clear().env("HOME", self.home.path()).env("KUBECONFIG", config);
        command.args(arguments.split_whitespace());
        command
    }

    /// 32 of `v1.32.4`.
    async fn minor(&self) -> u32 {
        let version = self.run("version --client -o json").await;
        let version: serde_json::Value = serde_json::from_str(&version).unwrap();
        version["clientVersion"]["minor"].as_str().unwrap().trim_end_matches('+').parse().unwrap()
    }

    async fn run(&self, arguments: &str) -> String {
        let output = output(self.command(arguments)).await;
        let text = [&output.stdout[..], &output.stderr].concat();
        String::from_utf8(text).unwrap()
    }
}

const SHOP: &str = "\
apiVersion: v1
kind: Namespace
metadata:
  name: shop
---
apiVersion: v1
kind: Service
metadata:
  name: cart
  namespace: shop
spec:
  ports:
    - name: http
      port: 80
      targetPort: 8080
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: texts
  namespace: shop
data:
  a: ${HOME}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: cart
  namespace: shop
spec:
  parentRefs:
    - name: eg
      namespace: envoy-gateway-system
  hostnames:
    - shop.test
  rules:
    - backendRefs:
        - name: cart
          port: 80
";

#[tokio::test]
async fn kubectl_gets_describes_applies_watches_and_deletes() {
    for program in kubectls() {
        let api = Api::writable().await;
        let kubectl = Kubectl { program, api: &api, home: tempfile::TempDir::new().unwrap() };
        let of = kubectl.program.display();
        let gateways = kubectl.run("get gateways,httproutes,gatewayclasses -A").await;
        assert!(gateways.contains("CLASS   ADDRESS"), "{of}: {gateways}");
        assert!(gateways.contains("gateway.gateway.networking.k8s.io/eg"), "{of}: {gateways}");

        let file = kubectl.home.path().join("shop.yaml");
        let apply = format!("apply -f {}", file.display());
        fs::write(&file, SHOP).unwrap();
        let applied = kubectl.run(&apply).await;
        let made = ["namespace/shop", "service/cart", "configmap/texts"]
            .map(|one| format!("{one} created"));
        for line in made
            .iter()
            .map(String::as_str)
            .chain(["httproute.gateway.networking.k8s.io/cart created"])
        {
            assert!(applied.contains(line), "{of}: {line} in {applied}");
        }
        let again = kubectl.run(&apply).await;
        // Of a route kubectl sees the defaults that it did not write, and so it is as in a cluster.
        assert_eq!(again.matches("unchanged").count(), 3, "{of}: {again}");
        let route = "get httproute cart -n shop -o jsonpath={.metadata.generation}";
        assert_eq!(kubectl.run(route).await, "1", "{of}");
        fs::write(&file, SHOP.replace("8080", "8081").replace("shop.test", "cart.test")).unwrap();
        let changed = kubectl.run(&apply).await;
        assert_eq!(changed.matches("configured").count(), 2, "{of}: {changed}");
        let route = kubectl.run("get httproute cart -n shop -o yaml").await;
        assert!(route.contains("- cart.test") && route.contains("generation: 2"), "{of}: {route}");
        let service =
            kubectl.run("get service cart -n shop -o jsonpath={.spec.ports[*].targetPort}").await;
        assert_eq!(service, "8081", "{of}");
        let text = kubectl.run("get configmap texts -n shop -o jsonpath={.data.a}").await;
        assert_eq!(text, "${HOME}", "{of}");

        let described = kubectl.run("describe httproute cart -n shop").await;
        for part in ["NotAllowedByListeners", "Controller Name:", "Events:"] {
            assert!(described.contains(part), "{of}: {part} in {described}");
        }
        // The fields as they are read. Before 1.25 kubectl reads another form of schemas.
        if kubectl.minor().await >= 25 {
            let explained = kubectl.run("explain httproute.spec.rules.backendRefs").await;
            for part in ["KIND:       HTTPRoute", "port\t<integer>", "weight\t<integer>"] {
                assert!(explained.contains(part), "{of}: {part} in {explained}");
            }
            let explained = kubectl.run("explain gateways --recursive").await;
            assert!(explained.contains("certificateRefs\t<[]Object>"), "{of}: {explained}");
            let unknown = kubectl.run("explain httproute.spec.nothing").await;
            assert!(unknown.contains("field \"nothing\" does not exist"), "{of}: {unknown}");
        }
        fs::write(&file, SHOP.replace("hostnames", "hostnams")).unwrap();
        let refused = kubectl.run(&apply).await;
        // Before 1.25 kubectl has no such question, and the field is left out with a warning.
        assert!(refused.contains("spec.hostnams"), "{of}: {refused}");

        // A watch sees what another does.
        let mut watching = kubectl.command("get httproutes -n shop -w --no-headers");
        let log = kubectl.home.path().join("watch");
        watching.stdout(fs::File::create(&log).unwrap());
        let mut child = watching.spawn().unwrap();
        let told = || fs::read_to_string(&log).unwrap();
        until("the first line of a watch", || told().contains("cart")).await;
        let labelled = kubectl.run("label httproute cart -n shop a=b").await;
        assert!(labelled.contains("labeled"), "{of}: {labelled}");
        until("the second line of a watch", || told().matches("cart").count() > 1).await;
        child.kill().unwrap();
        child.wait().unwrap();

        let hand = kubectl.run("delete gateway eg -n envoy-gateway-system").await;
        assert!(hand.contains("gateway.yaml"), "{of}: {hand}");
        let waited = kubectl
            .run("wait --for=condition=Programmed gateway/eg -n envoy-gateway-system --timeout=10s")
            .await;
        assert!(waited.contains("condition met"), "{of}: {waited}");
        let deleted = kubectl.run("delete httproute/cart service/cart -n shop").await;
        assert_eq!(deleted.matches("deleted").count(), 2, "{of}: {deleted}");
        let left = kubectl.run("get httproutes -n shop").await;
        assert!(left.contains("No resources found"), "{of}: {left}");
    }
}

/// Debian's kubectl has it, too, since 1.22.
#[tokio::test]
async fn kubectl_applies_a_listener_beside_another_ones() {
    let gateway = |name: &str, port: u16| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n\
             metadata: {{name: edge, namespace: envoy-gateway-system}}\n\
             spec:\n  gatewayClassName: other\n  listeners:\n    \
             - {{name: {name}, port: {port}, protocol: HTTP}}\n"
        )
    };
    for program in kubectls() {
        let api = Api::writable().await;
        let kubectl = Kubectl { program, api: &api, home: tempfile::TempDir::new().unwrap() };
        let of = kubectl.program.display();
        let file = kubectl.home.path().join("gateway.yaml");
        let apply = async |who: &str, text: String| {
            fs::write(&file, text).unwrap();
            let flags = format!("apply --server-side --field-manager {who} -f {}", file.display());
            kubectl.run(&flags).await
        };
        for (who, name, port) in [("me", "http", 80), ("you", "shop", 81), ("me", "http", 82)] {
            let applied = apply(who, gateway(name, port)).await;
            assert!(applied.contains("serverside-applied"), "{of}: {applied}");
        }
        let listeners =
            "get gateway edge -n envoy-gateway-system -o jsonpath={.spec.listeners[*].port}";
        assert_eq!(kubectl.run(listeners).await, "82 81", "{of}");
        let refused = apply("you", gateway("http", 83)).await;
        let told = r#"conflict with "me": .spec.listeners[name="http"].port"#;
        assert!(refused.contains(told), "{of}: {refused}");
    }
}
