//! `edge-gateway echo`: the echo backend without a gateway.

use std::net::SocketAddr;

use clap::Args;

use crate::app::Failed;
use crate::echo;

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  edge-gateway echo --listen 127.0.0.1:3000
  curl '127.0.0.1:3000/path?status=418'      also ?delay=1s and ?size=1000")]
pub(super) struct Echo {
    /// Address and port; HTTP/1.1, h2c, WebSocket and gRPC are answered on it
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
}

impl Echo {
    pub(super) fn run(self) -> Result<(), Failed> {
        let address = self.listen;
        let system = |source| Failed::System { what: "event queue", source };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(system)?;
        runtime.block_on(async {
            let failed = |source| Failed::Listen { address, source };
            let listener = tokio::net::TcpListener::bind(address).await.map_err(failed)?;
            echo::serve(listener).await.map_err(failed)
        })
    }
}
