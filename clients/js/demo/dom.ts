// Builds elements. Texts are always text nodes, so nothing that a user writes becomes markup.
type Child = Node | string | undefined;
type Properties<K extends keyof HTMLElementTagNameMap> = Partial<Omit<HTMLElementTagNameMap[K], "style" | "dataset">> & {
  on?: { [E in keyof HTMLElementEventMap]?: (event: HTMLElementEventMap[E]) => void };
  aria?: Record<string, string>;
  role?: string;
};

export function el<K extends keyof HTMLElementTagNameMap>(name: K, properties: Properties<K> = {}, ...children: Child[]): HTMLElementTagNameMap[K] {
  const { on, aria, role, ...rest } = properties as Properties<"div">;
  const element = document.createElement(name);
  Object.assign(element, rest);
  if (role) element.setAttribute("role", role);
  for (const [key, value] of Object.entries(aria ?? {})) element.setAttribute(`aria-${key}`, value);
  for (const [key, listener] of Object.entries(on ?? {})) element.addEventListener(key, listener as EventListener);
  element.append(...children.filter((one) => one !== undefined));
  return element;
}

export const button = (text: string, title: string, click: () => void, className = "") =>
  el("button", { type: "button", title, className, on: { click } }, text);

export const byId = (id: string) => document.getElementById(id)!;
