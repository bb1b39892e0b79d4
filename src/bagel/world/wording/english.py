"""English templates: for each key those for training, then those reserved for the held-out split."""

TEMPLATES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "draw": (
        (
            "[Draw|Paint|Create|Make|Show me] {things}.",
            "[A picture|An image|A drawing] of {things}.",
            "{things}.",
            "[Draw|Paint|Create] [a picture|an image] [with|of|that shows] {things}.",
            "A photo of {things}.",
            "[Please draw|I want] {things}[, please|].",
        ),
        ("[I would like to see|Could you sketch] {things}.", "Let the picture show {things}."),
    ),
    "on": (
        ("{things} on a {background} background", "{things} [before|in front of] a {background} background"),
        ("{things}, with {background} behind",),
    ),
    "at": (("{thing} in {place}", "{thing} in {place} [of the picture|of the image]"), ("{thing}, placed in {place}",)),
    "beside": (("{a} {relation} {b}",), ("{a} [that is|which is] {relation} {b}",)),
    "exist": (
        (
            "Is there {thing}[ in the picture|]?",
            "[Can you see|Do you see] {thing}[ here|]?",
            "Does the [picture|image] show {thing}?",
        ),
        ("[Would one find|Can one spot] {thing} here?",),
    ),
    "count": (
        (
            "How many {things} are there?",
            "How many {things} [can you see|do you see|does the picture show]?",
            "[Count|Please count] the {things}.",
            "What is the number of {things}[ in the picture|]?",
        ),
        ("[Tell me|Say] how many {things} there are.",),
    ),
    "colour?": (
        ("[What|Which] colour is {thing}?", "What is the colour of {thing}?", "[Name|Tell me] the colour of {thing}."),
        ("In [what|which] colour is {thing} [drawn|painted]?",),
    ),
    "shape?": (
        ("[What|Which] shape is {thing}?", "What is the shape of {thing}?", "[Name|Tell me] the shape of {thing}."),
        ("What kind of shape is {thing}?",),
    ),
    "coloured": (("the {colour} [one|thing|object]",), ()),
    "ranked": (("the {rank} [one|thing|object]",), ()),
    "is-beside": (
        ("Is {a} {relation} {b}?", "[Do you see|Does the picture show] {a} {relation} {b}?"),
        ("Is it true that {a} is {relation} {b}?",),
    ),
    "where": (
        ("Where is {a} [relative to|seen from] {b}?", "On which side of {b} is {a}: left, right, above or below?"),
        ("Left, right, above or below: where is {a} as seen from {b}?",),
    ),
    "more": (
        ("Are there more {a} than {b}?", "Is the number of {a} larger than the number of {b}?"),
        ("Do {a} outnumber {b}?",),
    ),
    "larger": (
        ("Which is larger, {a} or {b}?", "[What|Which one] is bigger: {a} or {b}?"),
        ("Of {a} and {b}, which is the larger one?",),
    ),
    "caption?": (
        (
            "Describe the [picture|image].",
            "What [does the picture show|is in the picture|do you see]?",
            "[Write|Give] a caption[ for this picture|].",
        ),
        ("Put the picture into words.", "[Tell me|Say] what is to be seen here."),
    ),
    "caption": (("{things}[ on a {background} background|].", "[The picture shows|There is] {things}."), ()),
    "yes": (("Yes.",), ()),
    "no": (("No.",), ()),
    "value": (("{value}.",), ()),
    "add": (
        (
            "[Add|Put|Draw|Place] {thing} in {place}.",
            "[Please add|I want] {thing} in {place}.",
            "[There should be|Let there be] {thing} in {place}.",
        ),
        ("Insert {thing} into {place}.", "{place} should [get|hold] {thing}."),
    ),
    "add-beside": (
        ("[Add|Put|Draw|Place] {thing} {relation} {other}.", "Please add {thing} {relation} {other}."),
        ("Insert {thing} {relation} {other}.",),
    ),
    "remove": (
        (
            "[Remove|Delete|Erase|Take away] {thing}.",
            "[Please remove|I do not want] {thing}.",
            "The picture without {thing}.",
        ),
        ("[Get rid of|Wipe out] {thing}.",),
    ),
    "recolour": (
        (
            "[Make|Paint|Colour] {thing} {colour}.",
            "Change the colour of {thing} to {colour}.",
            "Turn {thing} {colour}.",
            "Let {thing} become {colour}.",
        ),
        ("Give {thing} the colour {colour}.", "{thing} should [now be|be] {colour}."),
    ),
    "replace": (
        ("Replace {thing} [with|by] {new}.", "[Change|Turn] {thing} into {new}.", "Put {new} in the place of {thing}."),
        ("[Exchange|Swap] {thing} for {new}.",),
    ),
    "move": (
        (
            "Move {thing} [to|into] {place}.",
            "[Put|Push|Bring] {thing} into {place}.",
            "{thing} [goes|moves] to {place}.",
        ),
        ("[Shift|Take] {thing} over to {place}.",),
    ),
    "resize": (
        ("[Make|Draw] {thing} {size}.", "Change the size of {thing} to {size}.", "{thing} should be {size}."),
        ("Let {thing} become {size}.",),
    ),
    "background": (
        ("[Make|Paint] the background {colour}.", "Change the background to {colour}.", "Use a {colour} background."),
        ("Let everything stand before {colour}.",),
    ),
    "transfer": (
        (
            "[Give|Lend] {thing} the colour of {source}.",
            "[Paint|Colour] {thing} like {source}.",
            "{thing} should have the colour of {source}.",
        ),
        ("Let {thing} take on the colour that {source} has.",),
    ),
    "transfer-why": (("{source} is {colour}, so {thing} becomes {colour}.",), ()),
    "side": (
        ("[Remove|Delete|Erase] everything {relation} {thing}.", "[Take away|Clear] all that is {relation} {thing}."),
        ("Nothing {relation} {thing} may stay.",),
    ),
    "side-why": (("{relation} {thing} [I see|there is] {things}. [That goes|I remove that].",), ()),
    "row": (
        (
            "[Complete|Continue|Finish] the row.",
            "What comes next? [Draw it|Add it].",
            "Add the missing shape to the row.",
        ),
        ("One shape is missing at the end of the row: [draw|add] it.",),
    ),
    "row-why": (("The row is {things}, and then it repeats. Next comes {thing}.",), ()),
    "grid": (
        (
            "[Complete|Fill|Finish] the [grid|table].",
            "Fill the empty [cell|place] of the grid.",
            "Add what the grid lacks.",
        ),
        ("Find the gap in the grid and [fill|close] it.",),
    ),
    "grid-why": (
        ("[This row holds|In this row are] {shapes}, [this column is|the column is] {colour}. {thing} is missing.",),
        (),
    ),
    "odd": (
        ("[Remove|Delete] the odd one out.", "[Take away|Erase] the one that [differs from|is unlike] the others."),
        ("One does not belong: [make it vanish|get rid of it].",),
    ),
    "odd-why": (("All others are {things}; only {thing} differs. [It goes|I remove it].",), ()),
    "match": (
        (
            "Make the odd one [like the others|like all the rest].",
            "Let the one that differs [become|be] like the others.",
        ),
        ("Bring the odd one into line with the rest.",),
    ),
    "match-why": (("All others are {things}; only {thing} differs. I make it {new}.",), ()),
    "share": (
        (
            "[Paint|Colour|Make] everything that has the colour of {thing} {colour}, {thing} too.",
            "Whatever has the same colour as {thing}, and {thing} itself, [becomes|turns] {colour}.",
        ),
        ("Turn all that shares its colour with {thing} {colour}, including {thing}.",),
    ),
    "share-why": (("{thing} is {old}. {things} [are|have that colour]: {number} in all. They become {colour}.",), ()),
    "most": (
        (
            "[Remove|Delete] the [kind of shape|shape] that occurs most often.",
            "[Erase|Take away] all of the most common shape.",
        ),
        ("Wipe out whichever shape is in the majority.",),
    ),
    "most-why": (("I count {things}. The most are {most}, so {most} go.",), ()),
    "swap": (
        ("[Swap|Exchange] the colours of {a} and {b}.", "Let {a} and {b} [swap|trade] colours."),
        ("Give {a} the colour of {b}, and the other way round.",),
    ),
    "swap-why": (("{a} is {first} and {b} is {second}. [Swapped|Afterwards], they are {second} and {first}.",), ()),
    "mirror": (
        (
            "[Mirror|Reflect] the left half to the right.",
            "Make the picture symmetric: copy the left half, mirrored, to the right.",
        ),
        ("Let the right half become the mirror image of the left.",),
    ),
    "mirror-why": (("On the left [there is|I see] {things}. The same appears on the right, mirrored.",), ()),
    "corner": (
        ("[Move|Put|Push] {thing} into the empty corner.", "Bring {thing} to the corner that is [free|empty]."),
        ("There is one free corner: let {thing} fill it.",),
    ),
    "corner-why": (("The empty corner is {place}. {thing} is {look}. It goes there.",), ()),
    "balance": (
        (
            "Add {things} until there are as many {a} as {b}.",
            "Draw more {things} so that {a} and {b} are equal in number.",
        ),
        ("Even out {a} and {b} by adding {things}.",),
    ),
    "balance-why": (("There are {m} {a} and {n} {b}. {more} must be added.",), ()),
    "frames": (
        ("[These are|Here are|You see] {n} of a film.", "{n}, one after the other:"),
        ("A film begins with these {n}.",),
    ),
    "next": (
        (
            "[Show|Draw|Predict] the next {n}.",
            "What [follows|comes next]? [Draw|Show] the next {n}.",
            "Continue the film with the next {n}.",
        ),
        ("Let the film run on and [show|draw] the next {n}.",),
    ),
    "one-frame": (("frame", "picture"), ()),
    "some-frames": (("{n} frames", "{n} pictures"), ()),
    "here": (
        (
            "[You are|You stand] in a room. [This is what you see|This is your view].",
            "[Here is|This is] [your view|what you see].",
        ),
        ("Before you, you see this.",),
    ),
    "act": (
        (
            "{actions}. [What do you see now|What do you see then]?",
            "[You|Now you] {actions}. [Show|Draw] [the|your] new view.",
            "[Show|Draw] the view after this: {actions}.",
        ),
        ("[Suppose|Imagine] you {actions}. What would you see?",),
    ),
    "left": (("turn left", "turn [to the left|45 degrees left]"), ()),
    "right": (("turn right", "turn [to the right|45 degrees right]"), ()),
    "forward": (("[step|go|move] forward", "take a step forward"), ()),
    "back": (("[step|go|move] back", "take a step back"), ()),
    "then": (("{first}, then {second}",), ()),
    "stacks": (
        ("[These are|Here are|You see] some blocks.", "[Look at|Here is] this pile of blocks."),
        ("A camera looks at these blocks.",),
    ),
    "orbit": (
        (
            "[Turn|Move|Rotate] the camera [by |]{degrees} degrees to the {side}.",
            "[Show|Draw] them [with the camera|from] {degrees} degrees further to the {side}.",
        ),
        ("Walk around the blocks, {degrees} degrees to the {side}, and [show|draw] what you see.",),
    ),
    "side-left": (("left",), ()),
    "side-right": (("right",), ()),
    "sum?": (("[What|How much] is {sum}?", "[Tell me|Say] what {sum} is."), ("Please work out {sum}.",)),
    "hint?": (
        ("[What|Which] colour is {hint}?", "What is the colour of {hint}?"),
        ("In which colour does one think of {hint}?",),
    ),
    "ground?": (
        ("[What|Which] colour is the background?", "What is the colour of the background?"),
        ("Before [what|which] colour does it all stand?",),
    ),
    "sum": (
        ("[Draw|Paint|Show] as many {things} as {sum}.", "{sum}: [draw|paint] that many {things}."),
        ("The picture shall hold exactly as many {things} as {sum}.",),
    ),
    "plus": (("{a} plus {b}", "the sum of {a} and {b}"), ()),
    "minus": (("{a} minus {b}", "the difference of {a} and {b}"), ()),
    "corners": (("the number of corners of {shape}", "the corner count of {shape}"), ()),
    "sum-why": (("{sum} [is|makes] {n}. So I draw {things}.",), ()),
    "riddle": (
        ("[Draw|Paint|Show] {thing} in the colour of {hint}.", "{thing}, as coloured as {hint}."),
        ("Give me {thing} whose colour is that of {hint}.",),
    ),
    "riddle-why": (("The colour of {hint} is {colour}. So I draw {things}.",), ()),
    "tally": (
        (
            "[Draw|Show] as many {things} as there are {others} in this picture.",
            "Count the {others}; then [draw|paint] that many {things}.",
        ),
        ("For all the {others} here, draw equally many {things} on a new picture.",),
    ),
    "tally-why": (("I count {others}. So I draw {things}.",), ()),
    "steps": (
        (
            "First: {first} Then: {second} Show [each|every] step.",
            "In two steps, [with a picture each|one picture each]: {first} {second}",
        ),
        ("Do this one after the other, and show both pictures: {first} {second}",),
    ),
    "step-why": (("[Now|Next]: {step}", "I do this: {step}"), ()),
    "walk": (
        (
            "{actions}. Show [every|each] view on the way.",
            "[You|Now you] {actions}. [Draw|Show] what you see after each move.",
        ),
        ("Go on like this: {actions}. After each move, [show|draw] your view.",),
    ),
    "walk-why": (("I {action}.", "[Now|Next] I {action}."), ()),
    "grass": (("[fresh|green] grass", "a frog"), ()),
    "lemon": (("a [ripe |]lemon", "a canary"), ()),
    "blood": (("blood", "a ripe strawberry"), ()),
    "chocolate": (("chocolate", "[tree bark|wet soil]"), ()),
    "carrot": (("a carrot", "a pumpkin"), ()),
    "aubergine": (("an aubergine", "[grape juice|a plum]"), ()),
    "flamingo": (("a flamingo", "bubble gum"), ()),
    "ocean": (("[the deep ocean|the deep sea]", "blue jeans"), ()),
}
