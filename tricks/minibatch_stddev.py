from dataclasses import replace

from bench.trick import Claim, Trick, choice


class MinibatchStddev(Trick):
    """Minibatch standard deviation: D is shown how much the images of a small group differ.

    s = mean over channels and pixels of sqrt(var over the group + 1e-8), one number a group, put in as one more map
    before D's last convolution. Image i of B is in group i modulo B / group; where the group does not divide the batch,
    the whole batch is one group. sqrt(1e-8) is taken off again, so that s of equal images is 0 and not 1e-4. Real and
    fake images are judged in batches of their own: in one mixed batch s would say the same of both.
    """

    claims = [
        Claim(
            "raises variation; on StackedMNIST 881 modes against 857",
            "recall",
            1,
            "Karras et al. 2018 (progressive growing), section 3; the numbers as R3GAN quotes them",
            "https://arxiv.org/abs/1710.10196",
            evidence="quoted",
        )
    ]
    cost = "one more input map of D's last convolution"
    stage = "extras"
    conflicts = {"mixed_batches": "in a batch of real and fake images the map is the same for both"}
    interacts = {"diffaugment": "augmenting each image its own way hides a collapsed batch from it"}

    group: int = choice(
        4, span=(2, 4096), doc="images in a group; the whole batch where it does not divide it"
    )

    def d_layers(self, layers: tuple) -> tuple:
        from bench.norms import MinibatchStddev, last_weights

        at = last_weights(layers)
        logit = replace(layers[at], inputs=layers[at].inputs + 1)
        return (*layers[:at], MinibatchStddev("stddev", self.group), logit, *layers[at + 1 :])
