from dataclasses import replace

from bench.trick import Claim, Trick, choice


class DenseLayer(Trick):
    """Dense hidden layer: a fully connected layer on top of D's convolutions, or in front of G's.

    In D it takes the place of the logit's layer on the smallest maps, and the logit is one product of its output; in G
    it stands between the latents and the layer that makes the first maps. BatchNorm and the network's own activation
    follow it, as they follow every hidden layer. `size` is as said: the width of the network does not change it.
    """

    claims = [
        Claim(
            "remove fully connected hidden layers for deeper architectures",
            "fid",
            1,
            "Radford et al. 2015, section 3",
            "https://arxiv.org/abs/1511.06434",
            "recalled",
        )
    ]
    stage = "widths"
    after = ("constant_width", "width")
    cost = "parameters: in D size x the numbers in the smallest maps, in G size x (latents + first maps)"

    d: bool = choice(True, among=(True, False), doc="whether D has one, before the logit")
    g: bool = choice(False, among=(True, False), doc="whether G has one, before its first maps")
    size: int = choice(512, span=(1, 4096), doc="units of the layer")

    def d_layers(self, layers: tuple) -> tuple:
        from bench.layers import Dense

        if not self.d:
            return layers
        *before, logit = layers
        hidden = replace(logit, name="dense", outputs=self.size)
        return (*before, *self._hidden(hidden, layers), Dense(logit.name, self.size, logit.outputs))

    def g_layers(self, layers: tuple) -> tuple:
        from bench.layers import Dense

        if not self.g:
            return layers
        project, *rest = layers
        hidden = Dense("dense", project.inputs, self.size)
        return (*self._hidden(hidden, layers), replace(project, inputs=self.size), *rest)

    def _hidden(self, dense, layers: tuple) -> tuple:
        from bench.networks import BatchNorm

        activation = next(layer for layer in layers if layer.hidden)
        return (dense, BatchNorm("dense_norm", self.size), replace(activation, name="dense_relu"))
