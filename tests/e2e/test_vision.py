"""An image from a file through the proxy and the real engine's vision tower (random weights: the way is real, not the words)."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path

import openai
import pytest

from .conftest import StackFolder

pytestmark = pytest.mark.e2e

PROJECTOR = Path(__file__).parents[1] / "tools" / "tiny_projector.py"
# 16 x 16 pixels, a gradient of colours
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAIAAACQkWg2AAABlklEQVR42hXRURVEIQhFUSMYgQhGMAIRiGCEE8EIRiACEYhABCLM"
    "G7/ZrMt1jMEcyGAN9kAHNjgDBnfwBj6IQQ5q0IMxJnMikzXZE53Y5EyY3Mmb+CQmOalJzw8IUxBhCVtQwYQjIFzhCS6EkEIJLR9Y"
    "zIUs1mIvdGGLs2BxF2/hi1jkoha9PrCZG9mszd7oxjZnw+Zu3sY3sclNbXp/QJmKKEvZiiqmHAXlKk9xJZRUSmn9gDENMZaxDTXM"
    "OAbGNZ7hRhhplNH2gcM8yGEd9kEPdjgHDvfwDn6IQx7q0OcD/wK/Sr4jv9hfkG/1N/x/Fx44BCQU9Pc94zIvclmXfdGLXc79j9/L"
    "u/glLnmpS98PPOZDHuuxH/qwx3n/5ffxHv6IRz7q0e8DznTEWc521DHn+D/KdZ7jTjjplNP+gWAGEqxgBxpYcOIf/AYv8CCCDCro"
    "+EAyE0lWshNNLDn5P/MmL/Ekkkwq6fxAMQspVrELLaw49S/lFq/wIoosquj6QDMbaVazG22sOf2v8Dav8SaabKrp5geIAnAQC3Nf"
    "wAAAAABJRU5ErkJggg=="
)


@pytest.fixture
def eyes(stack: StackFolder, smollm2: Path) -> StackFolder:
    """A stack with a model that sees; its facts are read from the files' headers by `up`."""
    port = stack.model_ports[2]
    stack.write(
        extra=f"""  eyes:
    backend: llamacpp
    source: {{path: smol.gguf, mmproj: eyes.gguf}}
    capabilities: [chat, vision]
    context: 2048
    placement: cpu
    sampling: {{max_tokens: 8}}
    roles: {{caption: 50}}
    pin: {{port: {{value: {port}, because: "tests choose free ports"}}}}
"""
    )
    models = stack.folder / "models"
    models.mkdir()
    (models / "smol.gguf").symlink_to(smollm2)
    subprocess.run([sys.executable, str(PROJECTOR), str(models / "eyes.gguf")], check=True)
    (stack.folder / "pixel.png").write_bytes(PNG)
    return stack


def test_an_image_is_answered_by_role_and_what_cannot_see_says_who_can(eyes: StackFolder) -> None:
    up = eyes.run("up", "-d")
    assert up.returncode == 0, up.stderr
    assert "read the facts of eyes" in up.stderr
    asked = eyes.run("ask", "What is this?", "--image", "pixel.png", "--url", eyes.url)
    assert asked.returncode == 0, asked.stderr

    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(PNG).decode()}"}}
    with openai.OpenAI(base_url=f"{eyes.url}/v1", api_key="none", max_retries=0) as client:

        def send(model: str, *parts: object) -> object:
            messages: object = [{"role": "user", "content": [*parts, {"type": "text", "text": "What is this?"}]}]
            return client.chat.completions.create(model=model, messages=messages)  # type: ignore[call-overload]

        assert send("role:caption", image)
        with pytest.raises(openai.BadRequestError, match="no vision") as blind:
            send("small", image)
        assert "`eyes`" in str(blind.value.body)
        with pytest.raises(openai.BadRequestError, match="2"):
            send("role:caption", image, image)
        with pytest.raises(openai.BadRequestError, match="inline"):
            send("role:caption", {"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/x.png"}})


def test_the_facts_in_the_lock_are_those_of_the_files(eyes: StackFolder) -> None:
    assert eyes.run("up", "--once").returncode == 0
    lock = (eyes.folder / "models.lock").read_text()
    total = sum(path.stat().st_size for path in (eyes.folder / "models").iterdir())
    assert f'"weights_bytes": {total}' in lock
    assert eyes.run("check").returncode == 0
    assert "eyes" in eyes.run("roles", "caption").stdout
