"""Commands on webhooks: whom the service tells what has happened, and what came of it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from service.cli import context, lists, render
from service.cli.context import client_of, printed
from service.cli.options import Json, Url

app = typer.Typer(no_args_is_help=True, help="Addresses that are told what happens to studies.")
WebhookId = Annotated[int, typer.Argument(metavar="ID", help="The webhook's id.")]
Event = Annotated[list[str] | None, typer.Option(help="Of what it is told, such as study.finished, or * for everything.")]


@app.command("add")
def add(
    address: Annotated[str, typer.Argument(help="Where requests are sent.")],
    event: Event = None,
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    everyone: Annotated[bool, typer.Option(help="Of everybody's studies; for admins.")] = False,
    url: Url = None,
) -> None:
    """Make a webhook; its secret is printed once."""
    given: dict[str, Any] = {"url": address, "description": description, "everyone": everyone}
    made = client_of(url).post("/v1/webhooks", given | ({"events": event} if event else {}))
    _secret(made)


@app.command("list")
def show(json_: Json = False, url: Url = None) -> None:
    """List webhooks and their states."""
    printed(client_of(url).get("/v1/webhooks"), lists.webhooks, json_)


@app.command("log")
def log(
    webhook_id: WebhookId,
    state: Annotated[str | None, typer.Option(help="waiting, delivered or failed.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500)] = 50,
    json_: Json = False,
    url: Url = None,
) -> None:
    """Show what was sent to a webhook, latest first."""
    query = {"limit": limit, **({"state": state} if state else {})}
    printed(client_of(url).get(f"/v1/webhooks/{webhook_id}/deliveries", **query), lists.deliveries, json_)


@app.command("test")
def send_test(webhook_id: WebhookId, url: Url = None) -> None:
    """Send a webhook a message of the type webhook.test."""
    sent = client_of(url).post(f"/v1/webhooks/{webhook_id}/test")
    render.echo(context.out, f"delivery {sent['id']} is sent; see: regsearch webhook log {webhook_id}")


@app.command("redeliver")
def redeliver(
    webhook_id: WebhookId,
    delivery_id: Annotated[int, typer.Argument(metavar="DELIVERY", help="The delivery's id.")],
    url: Url = None,
) -> None:
    """Send a message once more."""
    sent = client_of(url).post(f"/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver")
    render.echo(context.out, f"delivery {sent['id']} is sent again")


@app.command("rotate")
def rotate(
    webhook_id: WebhookId,
    overlap: Annotated[float, typer.Option(min=0, max=720, help="Hours for which the old secret signs, too.")] = 24.0,
    url: Url = None,
) -> None:
    """Give a webhook a new secret, which is printed once."""
    _secret(client_of(url).post(f"/v1/webhooks/{webhook_id}/rotate", {"overlap_hours": overlap}))


@app.command("enable")
def enable(webhook_id: WebhookId, url: Url = None) -> None:
    """Send to a webhook again that was disabled."""
    client_of(url).patch(f"/v1/webhooks/{webhook_id}", {"enabled": True})
    render.echo(context.out, f"webhook {webhook_id} is enabled")


@app.command("disable")
def disable(webhook_id: WebhookId, url: Url = None) -> None:
    """Send nothing to a webhook until it is enabled."""
    client_of(url).patch(f"/v1/webhooks/{webhook_id}", {"enabled": False})
    render.echo(context.out, f"webhook {webhook_id} is disabled")


@app.command("delete")
def delete(webhook_id: WebhookId, url: Url = None) -> None:
    """Remove a webhook, with the log of its deliveries."""
    client_of(url).delete(f"/v1/webhooks/{webhook_id}")
    render.echo(context.out, f"webhook {webhook_id} is deleted")


def _secret(made: dict[str, Any]) -> None:
    context.err.print(f"Webhook {made['id']}; its secret is shown this once:", highlight=False)
    context.out.print(made["secret"], highlight=False, soft_wrap=True)
