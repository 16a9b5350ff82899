//! HTTPRouteFilters as written to filters that run: one small function per field.

use http::{HeaderValue, StatusCode};

use crate::api::envoy::route_filter::CredentialInjection;
use crate::api::{DirectBodyType, DirectResponse};
use crate::compile::misfit::Misfit;
use crate::config::field_path;
use crate::filters::{self, Filter};
use crate::graph::ExtensionFilter;

use super::header_names::changeable;

/// Compiles an HTTPRouteFilter. Each of its fields is a filter.
pub(in crate::compile) fn extension(found: &ExtensionFilter<'_>) -> Result<Vec<Filter>, Misfit> {
    let unusable = |problem: String| {
        Misfit::unusable(field_path!(extensionRef), &format!("{}: {problem}", found.key))
    };
    let mut run = Vec::new();
    if let Some(direct) = &found.spec.direct_response {
        run.push(direct_response(direct, found).map_err(unusable)?);
    }
    if let Some(injection) = &found.spec.credential_injection {
        run.push(credential_injection(injection, found).map_err(unusable)?);
    }
    Ok(run)
}

fn credential_injection(
    injection: &CredentialInjection,
    found: &ExtensionFilter<'_>,
) -> Result<Filter, String> {
    let name = injection.header.as_deref().unwrap_or("authorization");
    let field = "credentialInjection.header";
    let header = changeable(name, || field_path!(credentialInjection.header));
    let header = header.map_err(|misfit| match misfit {
        Misfit::Unusable { problem, .. } => format!("{field}: {problem}"),
        // `config` does not check HTTPRouteFilters, so this is the first report of the name.
        Misfit::Reported => {
            format!("{field}: `{name}` is not a header name; use letters, digits and `-`")
        }
    })?;
    let (credential, overwrite) =
        (found.value(CredentialInjection::CREDENTIAL), injection.overwrite.unwrap_or(false));
    let filter = filters::CredentialInjection::new(header, credential, overwrite);
    filter.map(Filter::CredentialInjection).ok_or_else(|| {
        format!(
            "{}: header `{}`: the value has a control character",
            CredentialInjection::CREDENTIAL,
            name.to_ascii_lowercase()
        )
    })
}

/// The graph has looked at status and body.
fn direct_response(direct: &DirectResponse, found: &ExtensionFilter<'_>) -> Result<Filter, String> {
    let content_type = direct.content_type.as_deref().map(HeaderValue::from_str).transpose();
    let content_type = content_type
        .map_err(|_| "directResponse.contentType: the value has a control character".to_owned())?;
    let body = match &direct.body {
        Some(body) if *body.kind() == DirectBodyType::Inline => {
            body.inline.as_deref().unwrap_or_default().as_bytes()
        }
        _ => found.value(DirectResponse::BODY),
    };
    Ok(Filter::DirectResponse(filters::DirectResponse {
        status: direct.status_code.and_then(|of| StatusCode::from_u16(of).ok()).unwrap_or_default(),
        content_type,
        body: body.to_vec().into(),
    }))
}
