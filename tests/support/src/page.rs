//! What every page for browsers must be: whole, needing nothing, running nothing.

/// Tags that have no end.
const VOID: [&str; 2] = ["meta", "!doctype"];

/// The names of the elements, each closed in the order in which it was opened.
#[track_caller]
pub fn elements(page: &str) -> Vec<String> {
    let (mut found, mut open) = (Vec::new(), Vec::new());
    let (before, rest) = page.split_once("<style>").unwrap();
    let (style, after) = rest.split_once("</style>").unwrap();
    assert!(!style.contains('<'), "{style}");
    for text in [before, after] {
        for tag in text.split('<').skip(1) {
            let (tag, words) = tag.split_once('>').unwrap_or_else(|| panic!("<{tag} has no end"));
            assert!(!words.contains('>'), "{words}");
            let name = tag.split_whitespace().next().unwrap();
            if let Some(name) = name.strip_prefix('/') {
                assert_eq!(open.pop().as_deref(), Some(name), "</{name}>");
            } else {
                found.push(name.to_owned());
                if !tag.ends_with('/') && !VOID.contains(&name) {
                    open.push(name.to_owned());
                }
            }
        }
    }
    assert_eq!(open, Vec::<String>::new());
    found
}

/// Nothing that a browser would fetch or run.
#[track_caller]
pub fn needs_nothing(page: &str) {
    let elements = elements(page);
    for name in ["script", "img", "link", "iframe", "object", "form", "a", "base"] {
        assert!(!elements.iter().any(|it| it == name), "<{name}> in {page}");
    }
    for word in ["src=", "href=", "url(", "@import", " onerror=", " style="] {
        assert!(!page.contains(word), "{word} in {page}");
    }
    assert!(page.contains("default-src 'none'"), "{page}");
}

/// The words of an attribute are harmless as text.
#[track_caller]
pub fn needs_nothing_but(page: &str) {
    let without = page.replace("src=x", "").replace("onload=", "");
    needs_nothing(&without);
}

/// The text without its tags, with single blanks.
pub fn words(page: &str) -> String {
    let body = page.split("<body>").nth(1).unwrap();
    let text: Vec<&str> = body.split('<').filter_map(|tag| tag.split('>').nth(1)).collect();
    text.concat().split_whitespace().collect::<Vec<_>>().join(" ")
}
