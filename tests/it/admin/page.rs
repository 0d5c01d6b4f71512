//! The page of the console in real Chromium.

use std::io::Write;

use super::{browser::Browser, *};

/// Maximum length of all files of the page together, compressed.
const MOST_BYTES: usize = 60 * 1_024;
/// A text that would act if any part of the page parsed it.
const HOSTILE: &str = "<img src=x onerror=\"window.pwned=1\"><script>window.pwned=1</script>\u{202e}";

async fn open(node: &Node, view: &str) -> Option<Browser> {
    let mut browser = Browser::open(&format!("{}/admin/#/{view}", node.admin())).await?;
    browser.shows("Admin token").await;
    Some(browser)
}

async fn log_in(browser: &mut Browser) {
    browser.value("document.querySelector('[name=token]').focus()").await;
    browser.types(ADMIN_TOKEN).await;
    browser.press("Enter").await;
}

#[test]
fn the_page_is_small_and_loads_nothing_from_elsewhere() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/console");
    let mut sum = 0;
    for name in ["console.html", "console.css", "console.js"] {
        let text = std::fs::read_to_string(format!("{folder}/{name}")).unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(text.as_bytes()).unwrap();
        sum += gzip.finish().unwrap().len();
        for word in ["http://", "https://", "innerHTML", "eval(", "document.write", "insertAdjacentHTML", "style="] {
            assert!(!text.contains(word), "{name} has {word}");
        }
    }
    assert!(sum <= MOST_BYTES, "{sum} bytes");
}

#[tokio::test]
async fn it_opens_with_the_token_only_and_works_by_keyboard() {
    let node = Node::dev().with_console().start().await;
    let Some(mut browser) = open(&node, "").await else { return };
    let mut bob = Client::native(&node, "bob").await;
    browser.until("document.activeElement.name === 'token'").await;
    browser.types("a-wrong-token").await;
    browser.press("Enter").await;
    browser.shows("This is not the console's token").await;
    browser.value("document.querySelector('[name=token]').value = ''").await;
    browser.until("document.activeElement.name === 'token'").await;
    browser.types(ADMIN_TOKEN).await;
    browser.press("Tab").await;
    browser.types("eve").await;
    browser.press("Enter").await;
    browser.until("document.querySelector('h1')?.innerText === 'Overview'").await;
    browser.shows("deliveries/s here").await;
    browser.until("document.activeElement.id === 'main'").await;
    assert_eq!(browser.value("location.href.includes('token') || document.cookie !== ''").await, false);

    browser.value("document.querySelector('.skip').focus()").await;
    browser.tab_to("Users").await;
    browser.press("Enter").await;
    browser.until("document.querySelector('h1')?.innerText === 'Users'").await;
    browser.tab_to("id").await;
    browser.types("bob").await;
    browser.press("Enter").await;
    browser.shows("On all nodes").await;
    browser.shows("native").await;
    browser.tab_to("Disconnect").await;
    browser.press("Enter").await;
    browser.shows("End all sockets of bob?").await;
    // The harmless answer has the focus.
    browser.press("Enter").await;
    browser.until("!document.querySelector('dialog').open").await;
    assert_eq!(node.metrics().await.get("switchboard_connections{dialect=\"native\"}"), Some(1.0));
    browser.tab_to("Disconnect").await;
    browser.press("Enter").await;
    browser.until("document.querySelector('dialog').open").await;
    browser.tab_to("Do it").await;
    browser.press("Enter").await;
    assert_eq!(bob.expect_close().await.0, 4410);
    browser.shows("The sockets end").await;
    node.logged("\"by\":\"console:eve\"").await;
    browser.click("Forget the token").await;
    browser.shows("Admin token").await;
    assert_eq!(browser.value("sessionStorage.length").await, 0);
    let base = node.admin();
    assert!(
        browser.requests.iter().all(|url| url.starts_with(&base) || url.starts_with("data:")),
        "{:?}",
        browser.requests
    );
    // The refused token is an error of the network to the browser.
    browser.faults.retain(|fault| !fault.contains("401"));
    assert!(browser.faults.is_empty(), "{:?}", browser.faults);
}

#[tokio::test]
async fn what_clients_choose_is_shown_as_text() {
    let node = Node::dev().with_console().start().await;
    let Some(mut browser) = open(&node, "tail").await else { return };
    log_in(&mut browser).await;
    browser.shows("Nothing happened yet").await;
    let mut request = tungstenite_request(&format!("{}/v1/ws", node.ws()));
    request.headers_mut().insert("origin", "https://<img src=x onerror=window.pwned=1>".parse().unwrap());
    request.headers_mut().insert("user-agent", "<script>window.pwned=1</script>".parse().unwrap());
    Client::try_connect(request).await.expect_err("a refusal");
    browser.shows("<script>window.pwned=1</script>").await;
    browser.shows("https://<img src=x onerror=window.pwned=1>").await;
    let mut alice = Client::native(&node, "alice").await;
    browser.shows("alice").await;

    let body = json!({"name": HOSTILE, "is_group": true, "participant_ids": ["bob"]});
    let made = node.post("/api/chat/conversations", &token("alice"), &body).await;
    let room = made.json["id"].as_str().unwrap();
    alice.join(room).await;
    alice.send_text(room, HOSTILE).await;
    alice.send_text(room, "find me").await;
    browser.value(&format!("location.hash = '#/conversations/{room}'")).await;
    browser.shows("find me").await;
    let shown = browser.value("document.querySelector('main').innerText").await;
    assert_eq!(shown.as_str().unwrap().matches("<script>window.pwned=1</script>").count(), 2, "{shown}");
    assert_eq!(browser.value("document.querySelectorAll('main img, main script').length").await, 0);
    browser.value("document.querySelector('[name=q]').focus()").await;
    browser.types("find").await;
    browser.press("Enter").await;
    browser.shows("Found, the newest first").await;
    browser.click("Delete").await;
    browser.shows("Delete message 1?").await;
    browser.click("Do it").await;
    browser.shows("Message 1 is deleted").await;
    let read = node.get(&format!("/api/chat/conversations/{room}/messages/1"), &token("alice")).await;
    assert_eq!(read.json["is_deleted"], true);

    for hash in
        ["#/users/%3Cscript%3Ewindow.pwned%3D1%3C%2Fscript%3E", "#/__proto__/x", "#/conversations/%", "#/fault/../../x"]
    {
        browser.value(&format!("location.hash = '{hash}'")).await;
        browser.until("!document.querySelector('main').innerText.startsWith('…')").await;
    }
    browser.shows("This can't be shown").await;
    assert_eq!(browser.value("window.pwned === undefined").await, true);
    browser.faults.retain(|fault| !fault.contains("404"));
    assert!(browser.faults.is_empty(), "{:?}", browser.faults);
}

#[tokio::test]
async fn tools_explain_tokens_repeat_requests_and_show_settings_and_faults() {
    let receiver = Receiver::start(|before, _| async move {
        if before == 0 { HookResponse::status(400) } else { HookResponse::content("hi") }
    })
    .await;
    let node =
        Node::dev().with_console().set("PERSONA_WEBHOOK_URL", receiver.url()).set("PERSONA_IDS", "ada").start().await;
    let room = node.conversation(&token("alice"), &[]).await;
    let body = json!({"content": "how are you?", "persona_id": "ada"});
    node.post(&format!("/api/chat/conversations/{room}/messages"), &token("alice"), &body).await;
    node.metric("switchboard_console_deliveries", |kept| kept == 1.0).await;
    let Some(mut browser) = open(&node, "webhooks").await else { return };
    log_in(&mut browser).await;
    browser.shows("refused").await;
    browser.click("Body").await;
    browser.shows("how are you?").await;
    browser.click("Replay").await;
    browser.shows("Post request 1 to the webhook again?").await;
    browser.click("Do it").await;
    browser.shows("Request 1 was repeated as 2: ok.").await;
    assert_eq!(receiver.request(1).await.json["message"], "how are you?");

    browser.value("location.hash = '#/token'").await;
    browser.until("document.querySelector('textarea')").await;
    browser.value("document.querySelector('textarea').focus()").await;
    browser.types(&token_with("bob", json!({"exp": 1}))).await;
    browser.click("Explain").await;
    browser.shows("This node refuses the token.").await;
    browser.shows("Get a new token").await;

    browser.value("location.hash = '#/settings'").await;
    browser.shows("ADMIN_TOKEN").await;
    let text = browser.value("document.body.innerText").await;
    assert!(
        !text.as_str().unwrap().contains(ADMIN_TOKEN) && !text.as_str().unwrap().contains(&receiver.url()),
        "{text}"
    );
    browser.value("location.hash = '#/fault/redis-silent'").await;
    browser.shows("Redis accepts connections and does not answer").await;
    assert!(browser.faults.is_empty(), "{:?}", browser.faults);
}

/// The texts of the page whose contrast to what is behind them is less than 4.5 (WCAG 2.2, 1.4.3).
const TOO_FAINT: &str = r"(() => {
  const parse = (text) => text.match(/[\d.]+/g).map(Number);
  const luminance = ([red, green, blue]) => [red, green, blue].map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = parse(getComputedStyle(one).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const faint = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility() || element.disabled) continue;
    const [one, other] = [luminance(parse(getComputedStyle(element).color)), luminance(behind(element))].sort((a, b) => b - a);
    if ((one + 0.05) / (other + 0.05) < 4.5) faint.push(element.outerHTML.slice(0, 120));
  }
  return faint;
})()";

#[tokio::test]
async fn texts_are_readable_in_light_and_dark() {
    let node = Node::dev().with_console().start().await;
    let Some(mut browser) = open(&node, "").await else { return };
    let _bob = Client::native(&node, "bob").await;
    let mut views = vec![("", "Admin token")];
    for scheme in ["light", "dark"] {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        browser.call("Emulation.setEmulatedMedia", features).await;
        for (hash, text) in views.clone() {
            browser.value(&format!("location.hash = '#/{hash}'")).await;
            browser.shows(text).await;
            let faint = browser.value(TOO_FAINT).await;
            assert_eq!(faint, json!([]), "{scheme} {hash}");
            let back = browser.value("getComputedStyle(document.body).backgroundColor").await;
            assert_eq!(back == "rgb(255, 255, 255)", scheme == "light", "{back}");
        }
        if views.len() == 1 {
            log_in(&mut browser).await;
            browser.shows("deliveries/s here").await;
            views = vec![
                ("overview", "Degraded"),
                ("users/bob", "native"),
                ("tail", "By reason"),
                ("settings", "ADMIN_TOKEN"),
                ("token", "Explain"),
            ];
            for (hash, text) in views.clone() {
                browser.value(&format!("location.hash = '#/{hash}'")).await;
                browser.shows(text).await;
                assert_eq!(browser.value(TOO_FAINT).await, json!([]), "light {hash}");
                let unnamed =
                    "[...document.querySelectorAll('input, textarea')].filter((one) => !one.labels.length).length";
                assert_eq!(browser.value(unnamed).await, 0, "{hash}");
            }
        }
    }
}
