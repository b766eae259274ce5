//! Checks one version: endpoints, rewrites, headers, TLS, deadlines, health, pool.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::check::Check;
use super::check_process::TLS_VERSIONS;
use super::duration::parse_amount;
use super::fault::{Place, Show};
use super::files;
use super::model::TlsVersion;
use super::model_rollout::{
    Ejection, Endpoint, HealthCheck, HostMode, HttpVersion, Pool, Prices, Scheme, Timeouts, UpstreamTls, Version,
};
use super::raw;
use super::read::{At, Named, Scalar, Text};
use crate::names::VersionName;
use crate::wire::Rewrite;

const MS: Duration = Duration::from_millis(1);
/// Headers that serin frames or names itself.
const OWN: [&str; 10] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

impl Check<'_, '_> {
    /// One version. `bound` are serin's own addresses; `prices` the rollout's.
    pub(crate) fn version(
        &mut self,
        raw: raw::Version,
        bound: &[SocketAddr],
        prices: Option<Prices>,
    ) -> Option<Version> {
        let name = match &raw.version {
            Some(at) => {
                let good = !at.value.0.is_empty()
                    && at.value.0.len() <= 128
                    && at.value.0.bytes().all(|b| b.is_ascii_graphic());
                if !good {
                    self.sink.fault(
                        &at.place,
                        "is no version name",
                        "use visible ASCII signs without spaces, at most 128",
                    );
                }
                good.then(|| VersionName::new(at.value.0.as_str()))
            }
            None => {
                self.sink.missing(
                    &raw.place,
                    "version",
                    "write the version's name: tags, metrics and the journal carry it",
                );
                None
            }
        };
        let endpoints = match &raw.endpoints {
            Some(list) if !list.is_empty() => self.endpoints(list, bound),
            Some(_) => {
                self.sink.fault(
                    &raw.place.child("endpoints"),
                    "is empty",
                    "write at least one, as [\"http://127.0.0.1:9001\"]",
                );
                Vec::new()
            }
            None => {
                self.sink.missing(&raw.place, "endpoints", "write at least one, as [\"http://127.0.0.1:9001\"]");
                Vec::new()
            }
        };
        let https = [("auto", HttpVersion::Auto), ("1", HttpVersion::Http1), ("2", HttpVersion::Http2)];
        let host = match &raw.host {
            None => HostMode::Upstream,
            Some(at) if at.value.0 == "upstream" => HostMode::Upstream,
            Some(at) if at.value.0 == "pass" => HostMode::Pass,
            Some(at) => self.host(at).map_or(HostMode::Upstream, HostMode::Name),
        };
        let (headers_set, headers_remove) = self.headers(raw.headers.unwrap_or_default());
        let prefix = |path: String| if path == "/" { None } else { Some(path.trim_end_matches('/').to_owned()) };
        let http = self.choice(raw.http.as_ref(), &https, HttpVersion::Auto);
        let version = Version {
            name: name.unwrap_or_else(|| VersionName::new("")),
            http,
            host,
            strip_prefix: raw.strip_prefix.as_ref().and_then(|at| self.path(at)).and_then(prefix),
            add_prefix: raw.add_prefix.as_ref().and_then(|at| self.path(at)).and_then(prefix),
            rewrite: self.rewrite(raw.model.as_ref(), raw.system.as_ref(), raw.body.unwrap_or_default()),
            headers_set,
            headers_remove,
            tls: self.upstream_tls(raw.tls, &endpoints),
            endpoints,
            concurrency: NonZeroU32::new(
                u32::try_from(self.count(raw.concurrency.as_ref(), 0, u64::from(u32::MAX), 0)).unwrap_or_default(),
            ),
            timeouts: self.timeouts(raw.timeouts.unwrap_or_default()),
            health: raw.health.and_then(|health| self.health(health)),
            ejection: self.ejection(raw.ejection.unwrap_or_default()),
            pool: self.pool(raw.pool.unwrap_or_default()),
            prices: raw.prices.and_then(|own| self.prices(own)).or(prices),
        };
        (!version.name.as_str().is_empty() && !version.endpoints.is_empty()).then_some(version)
    }

    /// What is put into request bodies.
    fn rewrite(
        &mut self,
        model: Option<&At<Text>>,
        system: Option<&At<Text>>,
        body: Named<At<Scalar>>,
    ) -> Option<Rewrite> {
        let model = model.and_then(|at| self.filled(at));
        let system = system.and_then(|at| self.filled(at));
        let mut values = Vec::new();
        for (name, value) in body.0 {
            let path: Vec<String> = name.value.split('.').map(str::to_owned).collect();
            if path.iter().any(|key| key.is_empty() || key.len() > 64) || path.len() > 8 {
                self.sink.fault(
                    &name.place,
                    "is no place in a body",
                    "write keys with points between, as \"prompt.version\"",
                );
                continue;
            }
            let value = match value.value {
                Scalar::Text(text) => text.into(),
                Scalar::Number(number) if number.fract() == 0.0 && number.abs() < 9e15 => (number as i64).into(),
                Scalar::Number(number) => number.into(),
            };
            values.push((path, value));
        }
        let any = model.is_some() || system.is_some() || !values.is_empty();
        any.then(|| Rewrite::new(model.as_deref(), system.as_deref(), &values))
    }

    /// A text that is not empty.
    pub(crate) fn filled(&mut self, at: &At<Text>) -> Option<String> {
        if at.value.0.is_empty() {
            self.sink.fault(&at.place, "is empty", "write something, or leave the key out");
        }
        (!at.value.0.is_empty()).then(|| at.value.0.clone())
    }

    /// Addresses of a version, each of them once.
    pub(crate) fn endpoints(&mut self, list: &[At<Text>], bound: &[SocketAddr]) -> Vec<Endpoint> {
        let mut all: Vec<Endpoint> = Vec::new();
        for at in list {
            match endpoint(&at.value.0) {
                Err((why, remedy)) => {
                    // Credentials in an address are a secret.
                    let show = if at.value.0.contains('@') { Show::Hidden } else { Show::Source };
                    self.sink.fault(&Place { show, ..at.place.clone() }, why, remedy);
                }
                Ok(endpoint) if all.contains(&endpoint) => {
                    self.sink.fault(&at.place, "stands in the list twice", "take one out");
                }
                Ok(endpoint) if is_own(&endpoint, bound) => {
                    self.sink.fault(
                        &at.place,
                        "is a listener of serin itself",
                        "name the model's address: requests would go in a circle",
                    );
                }
                Ok(endpoint) => all.push(endpoint),
            }
        }
        all
    }

    fn headers(&mut self, raw: raw::Headers) -> (Vec<(HeaderName, HeaderValue)>, Vec<HeaderName>) {
        let mut set = Vec::new();
        for (name, value) in raw.set.unwrap_or_default().0 {
            let header = self.header(&name.place, &name.value);
            match HeaderValue::from_str(value.value.0.expose()) {
                Ok(mut text) => {
                    text.set_sensitive(true);
                    set.extend(header.map(|header| (header, text)));
                }
                Err(_) => {
                    self.sink.fault(&value.place, "cannot be the value of a header", "use visible signs in one line")
                }
            }
        }
        let remove = raw.remove.unwrap_or_default();
        let remove = remove.iter().filter_map(|at| self.header(&at.place, &at.value.0)).collect();
        (set, remove)
    }

    fn header(&mut self, place: &Place, name: &str) -> Option<HeaderName> {
        let header = self.header_name(place, name)?;
        if OWN.contains(&header.as_str()) {
            let remedy = if header == "host" { "use the key host" } else { "leave it out" };
            self.sink.fault(place, "is a header that serin sets itself", remedy);
            return None;
        }
        Some(header)
    }

    /// A header's name in lower case.
    pub(crate) fn header_name(&mut self, place: &Place, name: &str) -> Option<HeaderName> {
        let header = HeaderName::from_bytes(name.as_bytes()).ok();
        if header.is_none() {
            self.sink.fault(place, "is no header name", "use letters, digits and \"-\"");
        }
        header
    }

    fn upstream_tls(&mut self, raw: Option<raw::UpstreamTls>, endpoints: &[Endpoint]) -> UpstreamTls {
        let Some(raw) = raw else { return UpstreamTls::default() };
        if !endpoints.is_empty() && endpoints.iter().all(|endpoint| endpoint.scheme == Scheme::Http) {
            self.sink.fault(
                &raw.place,
                "is written, but no endpoint begins with https://",
                "write https://, or take tls out",
            );
        }
        if let Some(at) = &raw.ca {
            self.file(at, files::authorities);
        }
        let client = match (raw.certificate, raw.key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => {
                let chain = self.file(&certificate, files::certificates);
                let secret = self.file(&key, files::private_key);
                if let (Some(chain), Some(secret)) = (chain, secret) {
                    self.file(&key, |_| files::belongs(chain, &secret));
                }
                Some((certificate.value.0, key.value.0))
            }
            (Some(_), None) => {
                self.sink.missing(&raw.place, "key", "a client certificate needs its key");
                None
            }
            (None, Some(_)) => {
                self.sink.missing(&raw.place, "certificate", "a client key needs its certificate");
                None
            }
        };
        let version = raw.min_version.as_ref();
        UpstreamTls {
            ca: raw.ca.map(|at| at.value.0),
            client,
            server_name: raw.server_name.as_ref().and_then(|at| self.host(at)),
            min_version: version.map(|at| self.choice(Some(at), &TLS_VERSIONS, TlsVersion::V12)),
        }
    }

    fn timeouts(&mut self, raw: raw::Timeouts) -> Timeouts {
        let default = Timeouts::default();
        Timeouts {
            connect: self.duration(raw.connect.as_ref(), MS, default.connect),
            first_byte: self.duration(raw.first_byte.as_ref(), MS, default.first_byte),
            idle: self.duration(raw.idle.as_ref(), MS, default.idle),
        }
    }

    fn health(&mut self, raw: raw::Health) -> Option<HealthCheck> {
        let interval = self.duration(raw.interval.as_ref(), 100 * MS, Duration::from_secs(5));
        match &raw.path {
            Some(at) => self.path(at).map(|path| HealthCheck { path, interval }),
            None => {
                self.sink.missing(&raw.place, "path", "write what is asked for, as \"/health\"");
                None
            }
        }
    }

    fn ejection(&mut self, raw: raw::Ejection) -> Ejection {
        let default = Ejection::default();
        let at_most = raw.at_most.as_ref().and_then(|at| {
            let share = at.value.0.trim().strip_suffix('%').and_then(|text| text.trim().parse::<f64>().ok());
            let good = share.filter(|share| (0.0..=100.0).contains(share));
            if good.is_none() {
                self.sink.fault(&at.place, "is no share of the endpoints", "write \"0%\" to \"100%\"");
            }
            good.map(|share| share / 100.0)
        });
        let failures = self.count(raw.failures.as_ref(), 1, 1_000_000, u64::from(default.failures));
        Ejection {
            failures: u32::try_from(failures).unwrap_or(default.failures),
            for_: self.duration(raw.r#for.as_ref(), MS, default.for_),
            at_most: at_most.unwrap_or(default.at_most),
        }
    }

    fn pool(&mut self, raw: raw::Pool) -> Pool {
        let default = Pool::default();
        Pool {
            idle: usize::try_from(self.count(raw.idle.as_ref(), 0, 1_000_000, default.idle as u64))
                .unwrap_or(default.idle),
            idle_for: self.duration(raw.idle_for.as_ref(), MS, default.idle_for),
        }
    }

    /// Prices of tokens; a kind that is not written costs nothing, cached input what input costs.
    pub(crate) fn prices(&mut self, raw: raw::Prices) -> Option<Prices> {
        let per = match &raw.per {
            None => 1e6,
            Some(at) => match parse_amount(&at.value.0) {
                Ok(per) => per,
                Err(why) => {
                    self.sink.fault(&at.place, why, "write for how many tokens the price is, as \"1M\" or \"1K\"");
                    return None;
                }
            },
        };
        let mut pico = |at: Option<&At<f64>>| {
            let at = at?;
            let told = price_pico(at.value, per);
            told.inspect_err(|(what, remedy)| self.sink.fault(&at.place, *what, *remedy)).ok()
        };
        let input = pico(raw.input.as_ref()).unwrap_or_default();
        let cached = pico(raw.cached_input.as_ref()).unwrap_or(input);
        let written = pico(raw.cache_write.as_ref()).unwrap_or(input);
        let output = pico(raw.output.as_ref()).unwrap_or_default();
        Some(Prices { input_pico: input, cached_input_pico: cached, cache_write_pico: written, output_pico: output })
    }
}

/// Dearest token, 10⁻¹² dollars: a thousand dollars. It leaves every count of tokens room in 128 bits, and a float exact.
const PRICE_PICO_MOST: f64 = 1e15;
/// How far from a whole number a price may lie: what a decimal fraction loses as a float in three steps.
const PRICE_SLACK: f64 = 8.0 * f64::EPSILON;

/// `dollars` for `per` tokens, in whole 10⁻¹² dollars a token.
fn price_pico(dollars: f64, per: f64) -> Result<u64, (&'static str, &'static str)> {
    let pico = dollars * 1e12 / per;
    if !(0.0..=f64::MAX).contains(&dollars) || !pico.is_finite() {
        return Err(("is no price", "write US dollars, 0 or more"));
    }
    if pico > PRICE_PICO_MOST {
        return Err(("is more than 1,000 US dollars a token", "write the price of `per` tokens, as the provider does"));
    }
    let whole = pico.round();
    if (pico - whole).abs() > PRICE_SLACK * whole.max(1.0) {
        return Err(("is finer than a millionth of a dollar for a million tokens", "round it to six places"));
    }
    Ok(whole as u64)
}

/// Whether an endpoint is one of serin's own addresses.
fn is_own(endpoint: &Endpoint, bound: &[SocketAddr]) -> bool {
    let ip = if endpoint.host == "localhost" { Some(IpAddr::from([127, 0, 0, 1])) } else { endpoint.host.parse().ok() };
    bound.iter().any(|address| {
        let same = ip.is_some_and(|ip| ip == address.ip() || (address.ip().is_unspecified() && ip.is_loopback()));
        address.port() != 0 && address.port() == endpoint.port && same
    })
}

/// `scheme://host[:port]`.
fn endpoint(text: &str) -> Result<Endpoint, (&'static str, &'static str)> {
    let form = "write \"http://host:port\" or \"https://host\"";
    let uri: http::Uri = text.trim().parse().map_err(|_| ("is no endpoint", form))?;
    let scheme = match uri.scheme_str() {
        Some("http") => Scheme::Http,
        Some("https") => Scheme::Https,
        Some(_) => return Err(("has a scheme that serin does not speak", form)),
        None => return Err(("has no scheme", form)),
    };
    let authority = uri.authority().ok_or(("has no host", form))?;
    if authority.as_str().contains('@') {
        return Err(("carries credentials", "send them by headers = { set = { authorization = \"${VAR}\" } }"));
    }
    if uri.path_and_query().is_some_and(|rest| !matches!(rest.as_str(), "" | "/")) {
        return Err(("carries a path", "write it as add_prefix: an endpoint is scheme, host and port"));
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    let port = match authority.as_str().rsplit_once(':') {
        Some((_, digits)) if !digits.ends_with(']') => {
            digits.parse().ok().filter(|port| *port != 0).ok_or(("has a port that is none", form))?
        }
        _ => scheme.port(),
    };
    if host.is_empty() { Err(("has no host", form)) } else { Ok(Endpoint { scheme, host, port }) }
}

#[cfg(test)]
mod tests {
    use super::{endpoint, price_pico};

    #[test]
    fn a_price_is_a_whole_number_or_none() {
        for (dollars, per, expect) in [
            (0.4, 1e6, Ok(400_000)),
            (0.0375, 1e6, Ok(37_500)),
            (0.000_001, 1e6, Ok(1)),
            (15.0, 1e6, Ok(15_000_000)),
            (0.002, 1e3, Ok(2_000_000)),
            (0.1 + 0.2, 1e6, Ok(300_000)),
            (1_000.0, 1.0, Ok(1_000_000_000_000_000)),
            (0.0, 1e6, Ok(0)),
            (-0.1, 1e6, Err("is no price")),
            (f64::NAN, 1e6, Err("is no price")),
            (f64::INFINITY, 1e6, Err("is no price")),
            (1_000.1, 1.0, Err("is more than 1,000 US dollars a token")),
            (f64::MAX, 1.0, Err("is no price")),
            (0.000_000_5, 1e6, Err("is finer than a millionth of a dollar for a million tokens")),
            (0.123_456_78, 1e6, Err("is finer than a millionth of a dollar for a million tokens")),
        ] {
            assert_eq!(price_pico(dollars, per).map_err(|(what, _)| what), expect, "{dollars} for {per}");
        }
    }

    #[test]
    fn an_endpoint_is_scheme_host_and_port() {
        for (text, expect) in [
            ("http://127.0.0.1:9001", Ok("http://127.0.0.1:9001")),
            ("https://api.example.com", Ok("https://api.example.com")),
            ("https://API.example.com:443/", Ok("https://api.example.com")),
            ("http://[::1]:9001", Ok("http://[::1]:9001")),
            ("http://[::1]", Ok("http://[::1]")),
            ("127.0.0.1:9001", Err("has no scheme")),
            ("ftp://a", Err("has a scheme that serin does not speak")),
            ("http://a:0", Err("has a port that is none")),
            ("http://a:99999", Err("has a port that is none")),
            ("http://a/v1", Err("carries a path")),
            ("http://u:p@a", Err("carries credentials")),
            ("http://", Err("is no endpoint")),
        ] {
            assert_eq!(endpoint(text).map(|e| e.to_string()).as_deref().map_err(|e| e.0), expect, "{text}");
        }
    }
}
