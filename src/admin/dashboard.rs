//! The dashboard's routes: the page, its two assets, the cards that the page asks for again, log-in and log-out.
//!
//! The server renders everything; the script only swaps cards when an event says so and sends verbs. The policy of the
//! page forbids inline scripts and styles and every other origin.

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use serde::Deserialize;

use super::auth::{self, Caller, READERS};
use super::body::{self, Body};
use super::card;
use super::context::{Context, Side};
use super::error::Problem;
use super::rollouts;
use super::sessions::{COOKIE, SESSION_LIFE};
use crate::report::Html;

const STYLE: &str = include_str!("../../assets/dashboard/style.css");
const SCRIPT: &str = include_str!("../../assets/dashboard/app.js");
/// What the page may do: nothing but its own files.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// All of them.
pub fn routes() -> Router<Context> {
    Router::new()
        .route("/", get(page))
        .route("/dashboard/rollouts", get(cards))
        .route("/dashboard/style.css", get(|| async { asset("text/css; charset=utf-8", STYLE) }))
        .route("/dashboard/app.js", get(|| async { asset("text/javascript; charset=utf-8", SCRIPT) }))
        .route("/login", post(login))
        .route("/logout", post(logout))
}

fn asset(media: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static(media))], text).into_response()
}

fn html(status: StatusCode, text: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (HeaderName::from_static("x-frame-options"), HeaderValue::from_static("DENY")),
    ];
    (status, headers, text).into_response()
}

/// `GET /`: all rollouts, or the log-in.
async fn page(State(cx): State<Context>, headers: HeaderMap) -> Response {
    match auth::identify(&cx, &Method::GET, &headers) {
        Ok(caller) if caller.need(READERS).is_ok() => html(StatusCode::OK, whole(&cx, &caller)),
        Ok(_) => html(StatusCode::FORBIDDEN, sign_in("this token may not read rollouts")),
        Err(_) => html(StatusCode::OK, sign_in("")),
    }
}

/// `GET /dashboard/rollouts`: the cards alone.
async fn cards(State(cx): State<Context>, caller: Caller) -> Result<Response, Problem> {
    caller.need(READERS)?;
    Ok(html(StatusCode::OK, all_cards(&cx, &caller)))
}

fn all_cards(cx: &Context, caller: &Caller) -> String {
    let views = rollouts::all(cx);
    if views.is_empty() {
        return "<p class=\"empty\" id=\"none\">No rollout is configured.</p>".to_owned();
    }
    views.iter().map(|view| card::card(view, &caller.actor)).collect()
}

#[derive(Deserialize)]
struct LogIn {
    #[serde(default)]
    token: String,
}

/// `POST /login`: a token for a cookie.
async fn login(State(cx): State<Context>, given: Body) -> Result<Response, Problem> {
    let bytes = body::bytes(given)?;
    let form = std::str::from_utf8(&bytes).ok().and_then(|form| format!("/?{form}").parse::<Uri>().ok());
    let token = form.and_then(|uri| Query::<LogIn>::try_from_uri(&uri).ok()).map(|Query(form)| form.token);
    let snapshot = cx.snapshot();
    let Some(token) = auth::find(&snapshot.config.admin.tokens, token.as_deref().unwrap_or("").trim()) else {
        return Ok(html(StatusCode::UNAUTHORIZED, sign_in("this token is not known")));
    };
    let session = cx.sessions().begin(token, cx.parts().clock.now());
    let session = session.ok_or_else(|| Problem::unavailable("no random numbers are to be had"))?;
    let secure = if matches!(cx.side, Side::Tcp { tls: true, .. }) { "; Secure" } else { "" };
    let life = SESSION_LIFE.as_secs();
    let id = session.id.expose();
    Ok(with_cookie(&format!("{COOKIE}={id}; Path=/; Max-Age={life}; HttpOnly; SameSite=Strict{secure}")))
}

/// `POST /logout`.
async fn logout(State(cx): State<Context>, headers: HeaderMap) -> Response {
    if let Some(id) = auth::cookie(&headers) {
        cx.sessions().end(id);
    }
    with_cookie(&format!("{COOKIE}=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict"))
}

/// Back to the page, with a cookie.
fn with_cookie(cookie: &str) -> Response {
    let mut response = Redirect::to("/").into_response();
    if let Ok(cookie) = HeaderValue::from_str(cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

const HEAD: &str = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
    <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>serin</title>\
    <link rel=\"icon\" href=\"data:,\"><link rel=\"stylesheet\" href=\"/dashboard/style.css\">";

/// The bird, drawn here so that the page needs no other file.
const MARK: &str = "<svg viewBox=\"0 0 32 32\" aria-hidden=\"true\">\
    <path class=\"bird\" d=\"M5 19c0-7 5-12 11-12 4 0 7 2 8 6l-1 1c1 8-4 13-10 13-3 0-5-1-7-3l-4 1z\"/>\
    <path class=\"beak\" d=\"M24 12l5 2-5 2z\"/><circle class=\"eye\" cx=\"19.5\" cy=\"12.5\" r=\"1.5\"/></svg>";

fn whole(cx: &Context, caller: &Caller) -> String {
    let mut page = Html::new();
    page.raw(HEAD);
    let token = caller.header.as_ref().map_or("", |token| token.expose());
    page.raw("<meta name=\"serin-token\" content=\"").text(token).raw("\">");
    page.raw("<script type=\"module\" src=\"/dashboard/app.js\"></script></head><body>");
    page.raw("<div class=\"top\"><div><h1 class=\"mark\">").raw(MARK).raw("serin</h1><span class=\"space\"></span>");
    page.raw("<span class=\"live\" id=\"live\" role=\"status\">live</span><span class=\"muted\">");
    page.text(&caller.actor.name).raw("</span>");
    if caller.header.is_some() {
        page.raw("<form method=\"post\" action=\"/logout\"><button class=\"link\">log out</button></form>");
    }
    page.raw("</div></div><main id=\"rollouts\">").raw(&all_cards(cx, caller)).raw("</main>").raw(DIALOG);
    page.raw("</body></html>");
    page.done()
}

const DIALOG: &str = "<dialog><form><h3 data-part=\"title\"></h3><p data-part=\"about\"></p>\
    <label data-part=\"weight\">Weight, %<input name=\"weight\" type=\"number\" min=\"0\" max=\"100\" step=\"0.001\" required></label>\
    <label data-part=\"by\">How much longer<input name=\"by\" placeholder=\"24h\" required></label>\
    <label data-part=\"full\" class=\"check\"><input name=\"full\" type=\"checkbox\"> to the last stage</label>\
    <label>Reason, for the record<textarea name=\"reason\" maxlength=\"2000\"></textarea></label>\
    <div class=\"error\" data-part=\"error\" role=\"alert\"></div>\
    <div class=\"row\"><button type=\"button\" data-part=\"cancel\">Cancel</button>\
    <button class=\"lead\" data-part=\"go\"></button></div></form></dialog>";

fn sign_in(error: &str) -> String {
    let mut page = Html::new();
    page.raw(HEAD).raw("</head><body><form class=\"login\" method=\"post\" action=\"/login\"><div class=\"mark\">");
    page.raw(MARK).raw("serin</div><h1>Log in</h1><p>With the secret of one of the configured admin tokens.</p>");
    page.raw("<label>Token<input name=\"token\" type=\"password\" autocomplete=\"current-password\" required autofocus></label>");
    page.raw("<div class=\"error\" role=\"alert\">").text(error).raw("</div>");
    page.raw("<div class=\"row\"><button class=\"lead\">Log in</button></div></form></body></html>");
    page.done()
}
