//! The kinds of `gateway.envoyproxy.io/v1alpha1`.

mod backend;

pub(crate) use self::backend::{
    AppProtocol, Backend, BackendEndpoint, BackendSpec, BackendTls, BackendType,
};
