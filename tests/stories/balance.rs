//! The balance of the workers: connections that are open at once are divided equally.

use std::net::SocketAddr;

use futures_util::future::join_all;
use tokio::task::JoinSet;

use crate::metrics::{scrape, value};
use crate::support::{Gateway, Origin, Wire, free_address, serve_all, soon};

/// The number of open connections of each worker on the socket of `port`.
async fn open(metrics: SocketAddr, port: u16, workers: usize) -> Vec<f64> {
    let text = scrape(metrics).await;
    let series = |worker: usize| {
        let labels =
            format!("envoy_listener_address=\"0.0.0.0_{port}\",envoy_worker_id=\"{worker}\"");
        format!("envoy_listener_worker_downstream_cx_active{{{labels}}}")
    };
    (0..workers).map(|worker| value(&text, &series(worker))).collect()
}

/// The same, once the workers have `count` in all.
async fn settled(metrics: SocketAddr, port: u16, workers: usize, count: u32) -> Vec<f64> {
    let settles = async {
        loop {
            let open = open(metrics, port, workers).await;
            if open.iter().sum::<f64>() == f64::from(count) {
                return open;
            }
        }
    };
    soon("all connections are counted", settles).await
}

async fn gateway(workers: usize) -> (Gateway, SocketAddr, Origin) {
    let (at, shop) = (free_address(), Origin::replying("shop").await);
    let gateway = Gateway::setup()
        .metrics_at(at)
        .flag(&format!("--workers {workers}"))
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
        .start()
        .await;
    (gateway, at, shop)
}

fn is_balanced(open: &[f64]) -> bool {
    open.iter().all(|one| open.iter().all(|other| one - other <= 1.0))
}

#[tokio::test]
async fn a_burst_of_connections_is_divided_equally() {
    for workers in [2, 8] {
        let (gateway, metrics, _shop) = gateway(workers).await;
        for round in 0..10 {
            let clients = join_all((0..64).map(async |_| {
                let mut wire = gateway.wire().await;
                wire.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
                assert_eq!(wire.reply().await.text(), "shop");
                wire
            }));
            let clients = clients.await;
            let open = settled(metrics, 8080, workers, 64).await;
            assert!(is_balanced(&open), "round {round}: {open:?}");
            drop(clients);
            settled(metrics, 8080, workers, 0).await;
        }
    }
}

#[tokio::test]
async fn a_burst_of_http2_connections_is_divided_equally() {
    for workers in [2, 8] {
        let (gateway, metrics, _shop) = gateway(workers).await;
        for round in 0..10 {
            let clients = join_all((0..16).map(async |_| {
                let mut client = gateway.http2("shop.test").await;
                assert_eq!(client.get("https://shop.test/").await.text(), "shop");
                client
            }));
            let clients = clients.await;
            let open = settled(metrics, 8443, workers, 16).await;
            assert!(is_balanced(&open), "round {round}: {open:?}");
            drop(clients);
            settled(metrics, 8443, workers, 0).await;
        }
    }
}

/// Workers begin to drain one after the other: a connection that one of them accepts is served,
/// also if it was meant for another that drains already.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bursts_over_restarts_are_answered() {
    let (mut gateway, _, _shop) = gateway(8).await;
    let address = gateway.http();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut clients = JoinSet::new();
    clients.spawn(async move {
        let mut count = 0;
        while !*stopped.borrow() {
            let answers = join_all((0..16).map(async |_| {
                let mut wire = Wire::connect(address).await;
                let lines = "Host: shop.test\r\nConnection: close\r\n\r\n";
                wire.send(format!("GET / HTTP/1.1\r\n{lines}")).await;
                let reply = soon("an answer", wire.try_reply_to("GET")).await;
                reply.expect("an answer before the end").text()
            }));
            count += answers.await.iter().filter(|text| *text == "shop").count();
        }
        count
    });
    for _ in 0..5 {
        let since = gateway.notify().messages().len();
        gateway.terminate();
        assert!(gateway.exit().await.success());
        drop(gateway.replace());
        gateway.replaced(since).await;
    }
    stop.send_replace(true);
    let count = soon("the client ends", clients.join_next()).await.unwrap().unwrap();
    assert!(count > 0 && count % 16 == 0, "{count} of a multiple of 16");
}
