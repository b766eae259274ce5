//! Which dialect an answer is written in: by path first, by its own shape where the path does not tell.

use super::facts::{Dialect, Protocol};
use super::scan::{self, key};

/// What the request's path says under `protocol`. `Unknown` means: look at the shape.
pub(crate) fn by_path(protocol: Protocol, path: &str) -> Dialect {
    let path = path.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
    let ends = |suffix: &str| path.ends_with(suffix);
    let told = match protocol {
        Protocol::Mcp => return Dialect::Mcp,
        Protocol::Http => return Dialect::Unknown,
        _ if ends("/chat/completions") => Dialect::Chat,
        _ if ends("/completions") => Dialect::Completions,
        _ if ends("/responses") => Dialect::Responses,
        _ if ends("/embeddings") => Dialect::Embeddings,
        _ if ends("/messages") => Dialect::Messages,
        Protocol::Auto if ends("/mcp") => Dialect::Mcp,
        Protocol::Auto if ends(":generateContent") || ends(":streamGenerateContent") => Dialect::Gemini,
        Protocol::Auto if ends("/converse") || ends("/converse-stream") => Dialect::Converse,
        _ => Dialect::Unknown,
    };
    if may(protocol, told) { told } else { Dialect::Unknown }
}

/// What the beginning of an answer says: an event's name and data, or the head of a document.
pub(crate) fn by_shape(protocol: Protocol, name: &[u8], data: &[u8]) -> Dialect {
    // Whatever is no object (or batch of them) is in no dialect: one look instead of ten searches.
    if name.is_empty() && !matches!(data.trim_ascii_start().first(), Some(b'{' | b'[')) {
        return Dialect::Unknown;
    }
    let object = |value: &[u8]| scan::has_pair(data, b"\"object\"", value);
    let kind = |value: &[u8]| scan::has_pair(data, b"\"type\"", value);
    let told = if name == b"message_start" || kind(b"\"message_start\"") {
        Dialect::Messages
    } else if name.starts_with(b"response.") || kind(b"\"response.") || object(b"\"response\"") {
        Dialect::Responses
    } else if scan::has(data, &key::JSONRPC) {
        Dialect::Mcp
    } else if object(b"\"chat.completion") {
        Dialect::Chat
    } else if object(b"\"text_completion\"") {
        Dialect::Completions
    } else if object(b"\"embedding\"") {
        Dialect::Embeddings
    } else if kind(b"\"message\"") && scan::has(data, &key::ROLE) {
        Dialect::Messages
    } else {
        Dialect::Unknown
    };
    if may(protocol, told) { told } else { Dialect::Unknown }
}

fn may(protocol: Protocol, dialect: Dialect) -> bool {
    match protocol {
        Protocol::Auto => true,
        Protocol::Http => false,
        Protocol::OpenAi => !matches!(dialect, Dialect::Messages | Dialect::Mcp | Dialect::Gemini | Dialect::Converse),
        Protocol::Anthropic => dialect == Dialect::Messages,
        Protocol::Mcp => dialect == Dialect::Mcp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_tells_the_dialect_where_the_protocol_allows_it() {
        for (protocol, path, expect) in [
            (Protocol::Auto, "/v1/chat/completions", Dialect::Chat),
            (Protocol::Auto, "/openai/deployments/x/chat/completions?api-version=1", Dialect::Chat),
            (Protocol::OpenAi, "/v1/completions/", Dialect::Completions),
            (Protocol::Auto, "/v1/responses", Dialect::Responses),
            (Protocol::Auto, "/v1/embeddings", Dialect::Embeddings),
            (Protocol::Auto, "/v1/messages?beta=true", Dialect::Messages),
            (Protocol::OpenAi, "/v1/messages", Dialect::Unknown),
            (Protocol::Anthropic, "/v1/chat/completions", Dialect::Unknown),
            (Protocol::Auto, "/v1/messages/count_tokens", Dialect::Unknown),
            (Protocol::Auto, "/mcp", Dialect::Mcp),
            (Protocol::Auto, "/v1beta/models/gemini-x:streamGenerateContent?alt=sse", Dialect::Gemini),
            (Protocol::OpenAi, "/v1beta/models/gemini-x:generateContent", Dialect::Unknown),
            (Protocol::Auto, "/model/us.maker.model-v1%3A0/converse", Dialect::Converse),
            (Protocol::Auto, "/model/m/converse-stream", Dialect::Converse),
            (Protocol::Anthropic, "/model/m/converse-stream", Dialect::Unknown),
            (Protocol::Auto, "/model/m/invoke-with-response-stream", Dialect::Unknown),
            (Protocol::Mcp, "/tools", Dialect::Mcp),
            (Protocol::Http, "/v1/chat/completions", Dialect::Unknown),
        ] {
            assert_eq!(by_path(protocol, path), expect, "{protocol:?} {path}");
        }
    }
}
